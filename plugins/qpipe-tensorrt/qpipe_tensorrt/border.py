"""What a loaded engine takes and gives: names, dtypes, and the shapes that each optimization profile serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.errors import EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qpipe.plugins.backend import Tensors
    from qpipe.records.tensors import Signature
    from qpipe_tensorrt.api import ICudaEngine

NUMPY = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}
"""NumPy's dtypes by TensorRT's; both keep a bool in one byte."""
Shape = tuple[int, ...]
ShapeKey = tuple[tuple[str, Shape], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """One input or output."""

    name: str
    dtype: str
    """NumPy's name."""
    ranges: tuple[tuple[Shape, Shape], ...] = ()
    """Of an input: smallest and largest shape, one pair per profile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """Everything that crosses between host and engine."""

    inputs: tuple[Wire, ...]
    outputs: tuple[Wire, ...]


def read_border(engine: ICudaEngine, signature: Signature) -> Border:
    """Inputs and outputs of the engine by the model's signature; an input that no kernel reads is not in the engine.

    Raises:
        EngineError: another set of names, or a tensor that cannot be passed.
    """
    modes = {name: engine.get_tensor_mode(name).name for name in _names(engine)}
    inputs = [spec.name for spec in signature.inputs if spec.name in modes]
    outputs = [spec.name for spec in signature.outputs]
    expected = {name for name, mode in modes.items() if mode == "INPUT"}
    if set(inputs) != expected or not set(outputs) <= set(modes) - expected:
        raise EngineError(
            f"the engine takes {_list(expected)} and gives {_list(set(modes) - expected)}; "
            f"its manifest says {_list(inputs)} and {_list(outputs)}",
            hint="build it again",
        )
    return Border(
        inputs=tuple(Wire(name=name, dtype=_dtype(engine, name), ranges=_ranges(engine, name)) for name in inputs),
        outputs=tuple(Wire(name=name, dtype=_dtype(engine, name)) for name in outputs),
    )


def take(border: Border, inputs: Tensors) -> dict[str, NDArray[np.generic]]:
    """One batch as the engine reads it: contiguous, in its dtype; nothing is converted.

    Raises:
        EngineError: an input is missing or has another dtype.
    """
    import numpy as np

    found: dict[str, NDArray[np.generic]] = {}
    for wire in border.inputs:
        if wire.name not in inputs:
            raise EngineError(f"input `{wire.name}` is missing")
        array = np.asarray(inputs[wire.name], order="C")  # `ascontiguousarray` would give a scalar one dimension
        if array.dtype != wire.dtype:
            raise EngineError(f"input `{wire.name}` is {array.dtype}, the engine takes {wire.dtype}")
        found[wire.name] = array
    return found


def choose_profile(border: Border, shapes: ShapeKey) -> int:
    """The tightest profile that serves these shapes: later ones are narrower than the first.

    Raises:
        EngineError: none does.
    """
    given = dict(shapes)
    serving = [
        {number for number, span in enumerate(wire.ranges) if _within(given[wire.name], span)} for wire in border.inputs
    ]
    fitting = set.intersection(*serving) if serving else {0}
    if not fitting:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes)
        raise EngineError(
            f"no optimization profile serves {told}", hint="say min, opt and max in the target's `shapes`"
        )
    return max(fitting)


def _within(shape: Shape, span: tuple[Shape, Shape]) -> bool:
    low, high = span
    return len(low) == len(shape) and all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True))


def _names(engine: ICudaEngine) -> list[str]:
    return [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]


def _dtype(engine: ICudaEngine, name: str) -> str:
    kind = engine.get_tensor_dtype(name).name
    if kind not in NUMPY:
        raise EngineError(
            f"tensor `{name}` is {kind}: inputs and outputs of an engine are float32, float16, integer or bool"
        )
    if engine.get_tensor_location(name).name == "HOST":
        raise EngineError(f"tensor `{name}` is a shape, which an engine keeps on the host: not supported")
    return NUMPY[kind]


def _ranges(engine: ICudaEngine, name: str) -> tuple[tuple[Shape, Shape], ...]:
    """A fixed input has no range of its own in any profile."""
    count, fixed = engine.num_optimization_profiles, tuple(engine.get_tensor_shape(name))
    if all(size >= 0 for size in fixed):
        return ((fixed, fixed),) * count
    spans = [engine.get_tensor_profile_shape(name, index) for index in range(count)]
    return tuple((tuple(low), tuple(high)) for low, _, high in spans)


def _list(names: object) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "nothing"  # type: ignore[call-overload]  # str
