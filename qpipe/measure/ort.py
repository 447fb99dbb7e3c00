"""An onnxruntime session that speaks in the user's names and dtypes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import EngineError
from qpipe.records.engine import Kind
from qpipe.records.tensors import Signature, TensorSpec

if TYPE_CHECKING:
    import onnxruntime as ort

    from qpipe.plugins.backend import Tensors

_DTYPES = {
    "float": "float32",
    "double": "float64",
    **{name: name for name in ("float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")},
    "bool": "bool",
    "string": "str",
}


UNASKED = "WeightBiasQuantization"
"""Optimizers that no session runs: this one quantizes the weights of a convolution that a recipe keeps in float between
two quantizers, with one scale for all channels."""


def cpu_options(threads: int) -> ort.SessionOptions:
    """Options of every session that answers or is timed: fixed threads, no spinning, one operator at a time."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("optimization.disable_specified_optimizers", UNASKED)
    return options


def computation(sha256: str, options: ort.SessionOptions) -> str:
    """The name of what a session computes: the bytes of a one-file model, the runtime, and what shapes its kernels."""
    import onnxruntime as ort

    level = str(options.graph_optimization_level).rpartition(".")[2]
    return f"{sha256} onnxruntime {ort.__version__} cpu threads={options.intra_op_num_threads} {level} -{UNASKED}"


def refusal(error: Exception) -> tuple[str, str]:
    """The reason that onnxruntime gives, on one line, and a hint for the refusals that are known."""
    reason = _SOURCE.sub("", " ".join(str(error).split()))
    if reason.startswith("[ONNXRuntimeError]"):
        reason = reason.split(" : ", 3)[-1]
    return reason[:600], next((hint for words, hint in _HINTS if any(word in reason.lower() for word in words)), "")


_SOURCE = re.compile(r"/onnxruntime_src/\S+:\d+ [^()]*\((?:[^()]|\([^()]*\))*\)(?: const)? ")
"""Where in onnxruntime's C++ an error comes from: file, line, signature."""

_HINTS = (
    (("failed to write",), "the disk is full: free some space there, or put the store on another disk"),
    (("opset", "ir version", "ir_version"), "export the model with an older opset, or upgrade onnxruntime"),
    (
        ("not a registered function/op", "could not find an implementation", "no opset import for domain"),
        "onnxruntime has no kernel for this operator: export the model without it",
    ),
    (
        ("cannot be reshaped", "broadcast"),
        "perhaps a size that the file leaves free is fixed inside the graph: export it again (torch: dynamo=True with "
        "dynamic_shapes, and an example of two rows or more), or feed that size (no data.trim, data.batch: 1)",
    ),
    (("external", "no such file"), "keep the external data files beside the model"),
    (("protobuf", "invalid_graph", "type error"), "check the file with onnx.checker.check_model"),
)


class OrtSession:
    """A `Session` on an `onnxruntime.InferenceSession`.

    Where `signature` is given, inputs and outputs of another float type than it names are cast at the border.

    Raises:
        EngineError: names of the file and of `signature` differ, or dtypes that are not float do.
    """

    kind: Kind = "measured"

    def __init__(
        self, session: ort.InferenceSession, signature: Signature | None = None, *, computes: str = ""
    ) -> None:
        self.computes = computes
        """Names the computation (`computation`): sessions of one name give the same outputs for the same inputs."""
        self._session: ort.InferenceSession | None = session
        own = read_signature(session)
        self.signature = signature or own
        self._inputs = _casts(own.inputs, self.signature.inputs, to_own=True)
        self._outputs = _casts(own.outputs, self.signature.outputs, to_own=False)
        self._names = [spec.name for spec in self.signature.outputs]

    def run(self, inputs: Tensors) -> dict[str, NDArray[np.generic]]:
        """Outputs by name, for one batch of inputs by name.

        Raises:
            EngineError: onnxruntime refused the inputs, or the session is closed.
        """
        if self._session is None:
            raise EngineError("this session is closed")
        feed = dict(inputs)
        for name, dtype in self._inputs:
            feed[name] = feed[name].astype(dtype)
        try:
            found = dict(zip(self._names, self._session.run(self._names, feed), strict=True))
        except Exception as error:
            reason, hint = refusal(error)
            raise EngineError(f"onnxruntime could not run this batch: {reason}", hint=hint) from error
        for name, dtype in self._outputs:
            found[name] = found[name].astype(dtype)
        return found

    def close(self) -> None:
        """Let go of the session and its memory."""
        self._session = None


def read_signature(session: ort.InferenceSession) -> Signature:
    """Inputs and outputs of a loaded file, in order.

    Raises:
        EngineError: an input or output is not a tensor of a dtype that numpy has.
    """
    return Signature(
        inputs=tuple(_spec(arg) for arg in session.get_inputs()),
        outputs=tuple(_spec(arg) for arg in session.get_outputs()),
    )


def _spec(arg: ort.NodeArg) -> TensorSpec:
    inner = arg.type.removeprefix("tensor(").removesuffix(")")
    if inner not in _DTYPES:
        raise EngineError(f"'{arg.name}' is a {arg.type}: only tensors of numpy's dtypes can be fed or read")
    return TensorSpec(name=arg.name, dtype=_DTYPES[inner], shape=tuple(dim or None for dim in arg.shape))


def _casts(own: tuple[TensorSpec, ...], user: tuple[TensorSpec, ...], *, to_own: bool) -> tuple[tuple[str, str], ...]:
    """(name, dtype) of every tensor that must be cast at the border."""
    by_name = {spec.name: spec for spec in own}
    if set(by_name) != {spec.name for spec in user}:
        raise EngineError(
            f"the file has {', '.join(sorted(by_name))} where the model has {', '.join(spec.name for spec in user)}",
            hint="a stage or toolchain renamed inputs or outputs",
        )
    casts = []
    for spec in user:
        dtype = by_name[spec.name].dtype
        if dtype == spec.dtype:
            continue
        if not (dtype.startswith("float") and spec.dtype.startswith("float")):
            raise EngineError(f"'{spec.name}' is {dtype} in the file and {spec.dtype} in the model")
        casts.append((spec.name, dtype if to_own else spec.dtype))
    return tuple(casts)
