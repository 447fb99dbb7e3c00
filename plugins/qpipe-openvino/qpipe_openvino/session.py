"""A session on a compiled model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qpipe.engines import check_requirements
from qpipe.errors import EngineError
from qpipe.plugins.inputs import checked_inputs
from qpipe.plugins.options import read_options
from qpipe.records.engine import Engine, Kind
from qpipe.records.target import Target
from qpipe.records.tensors import Signature
from qpipe_openvino.compiling import compile_for, read, refusal
from qpipe_openvino.machine import held_back
from qpipe_openvino.options import Options

if TYPE_CHECKING:
    import openvino as ov

    from qpipe.plugins.backend import Tensors

SHAPES_KEPT = 4
"""Compiled models of one session with `shapes: fixed`; each holds its own copy of the weights."""


def open_engine(engine: Engine, target: Target) -> OpenVinoSession:
    """A session on an engine folder.

    Raises:
        EngineError: this machine is not one that the engine requires, its kernels are held back, or OpenVINO refused
            the file.
    """
    check_requirements(engine)
    if held := held_back():
        raise EngineError(held.reason, hint=held.hint)
    fixed = read_options(Options, target).shapes == "fixed"
    try:
        return OpenVinoSession(read(engine.main_file), engine.signature, threads=target.threads, fixed=fixed)
    except RuntimeError as error:
        raise EngineError(f"OpenVINO cannot load engine {engine.digest[:12]}: {refusal(error)}") from error


class OpenVinoSession:
    """Inputs and outputs by the user's names; with `fixed`, one compiled model for each shape of inputs."""

    kind: Kind = "measured"

    def __init__(self, model: ov.Model, signature: Signature, *, threads: int, fixed: bool) -> None:
        self.signature = signature
        self._model: ov.Model | None = model
        self._threads = threads
        self._fixed = fixed
        self._requests: dict[tuple[tuple[int, ...], ...], ov.InferRequest] = {}
        if not fixed:
            self._requests[()] = compile_for(model, threads).create_infer_request()

    def run(self, inputs: Tensors) -> dict[str, NDArray[np.generic]]:
        """Outputs by name, for one batch of inputs by name.

        Raises:
            EngineError: the session is closed, inputs are missing or unknown, or of another shape or dtype.
        """
        if self._model is None:
            raise EngineError("this session is closed")
        # A request would take the last batch's values for an input that is missing, and cast those of another dtype.
        given = checked_inputs(self.signature, inputs)
        try:
            request = self._request(self._model, given)
            request.infer(given, share_inputs=True, share_outputs=True)
            return {spec.name: np.array(request.get_tensor(spec.name).data) for spec in self.signature.outputs}
        except RuntimeError as error:
            raise EngineError(f"OpenVINO could not run this batch: {refusal(error)}") from error

    def close(self) -> None:
        """Let go of the model and its memory."""
        self._model = None
        self._requests.clear()

    def _request(self, model: ov.Model, inputs: Tensors) -> ov.InferRequest:
        """The compiled model for these inputs; the one that was not used for longest goes first."""
        names = [spec.name for spec in self.signature.inputs]
        shapes = tuple(inputs[name].shape for name in names) if self._fixed else ()
        if shapes not in self._requests:
            fitted = model.clone()
            fitted.reshape(dict(zip(names, map(list, shapes), strict=True)))
            if len(self._requests) == SHAPES_KEPT:
                del self._requests[next(iter(self._requests))]
            self._requests[shapes] = compile_for(fitted, self._threads).create_infer_request()
        self._requests[shapes] = self._requests.pop(shapes)
        return self._requests[shapes]
