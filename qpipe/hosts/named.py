"""An engine on a device under the model's own names and dtypes, where its file tells the names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.errors import EngineError
from qpipe.hosts.engine import DeviceEngine
from qpipe.hosts.remote import Border
from qpipe.plugins.inputs import checked_inputs
from qpipe.records.engine import Kind
from qpipe.records.tensors import Signature, TensorSpec

if TYPE_CHECKING:
    from qpipe.plugins.backend import Tensors


class NamedSession:
    """Takes and gives the model's names and dtypes, whatever float types the file has at its borders."""

    def __init__(self, engine: DeviceEngine, signature: Signature, *, kind: Kind) -> None:
        self.kind: Kind = kind
        self.signature = signature
        self._engine = engine
        self._inputs = _in_order(engine.inputs, signature.inputs)
        self._outputs = _in_order(engine.outputs, signature.outputs)

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name, for one batch of inputs by name.

        Raises:
            EngineError: the inputs are not the model's, the device went away, or the runtime refused the batch.
        """
        given = checked_inputs(self.signature, inputs)
        arrays = tuple(given[border.name].astype(border.dtype, copy=False) for border, _ in self._inputs)
        found = dict(zip((border.name for border, _ in self._outputs), self._engine.run(arrays), strict=True))
        dtypes = {border.name: spec.dtype for border, spec in self._outputs}
        return {spec.name: found[spec.name].astype(dtypes[spec.name], copy=False) for spec in self.signature.outputs}

    def close(self) -> None:
        """End the runner."""
        self._engine.close()


def _in_order(borders: tuple[Border, ...], specs: tuple[TensorSpec, ...]) -> tuple[tuple[Border, TensorSpec], ...]:
    """Each tensor of the file with the model's: float types may differ, nothing else."""
    by_name = {spec.name: spec for spec in specs}
    if {border.name for border in borders} != set(by_name):
        there, ours = (", ".join(sorted(names)) for names in ({border.name for border in borders}, by_name))
        raise EngineError(f"the file has {there} where the model has {ours}")
    pairs = tuple((border, by_name[border.name]) for border in borders)
    for border, spec in pairs:
        if border.dtype != spec.dtype and not (border.dtype.startswith("float") and spec.dtype.startswith("float")):
            raise EngineError(f"'{spec.name}' is {border.dtype} in the file and {spec.dtype} in the model")
    return pairs
