"""What a session is given, held against its signature: runtimes cast, broadcast or reuse what does not fit, unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.errors import EngineError
from qpipe.records.tensors import Signature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qpipe.plugins.backend import Tensors


def checked_inputs(signature: Signature, inputs: Tensors) -> dict[str, NDArray[np.generic]]:
    """One batch in the signature's order, as it was given.

    Raises:
        EngineError: an input is missing or unknown, or has another dtype, rank or fixed size than the model's.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    if inputs.keys() != specs.keys():
        raise EngineError(f"inputs are {', '.join(inputs) or 'missing'}; the engine has {', '.join(specs)}")
    for name, spec in specs.items():
        given = inputs[name]
        if given.dtype.name != spec.dtype or not spec.fits(given.shape):
            raise EngineError(f"input {name} is {given.dtype}{list(given.shape)}; it takes {spec}")
    return {name: inputs[name] for name in specs}
