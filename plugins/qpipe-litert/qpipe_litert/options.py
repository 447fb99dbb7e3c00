"""The `options:` of a LiteRT target."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, cast

from qpipe.errors import TargetError
from qpipe.records.target import Target

BorderType = Literal["float", "int8"]
Kernels = Literal["xnnpack", "reference"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "io": ("float", "int8"),
    "kernels": ("xnnpack", "reference"),
    "activations": ("int8", "int16"),
    "layout": ("channels-last", "as-given"),
    "batch": ("free", "one"),
    "unranged": ("dynamic", "float"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a `.tflite` is made and run; every field has a default."""

    io: BorderType = "float"
    """Type of inputs and outputs in the file; a session takes and gives the model's own types either way."""
    kernels: Kernels = "xnnpack"
    activations: Literal["int8", "int16"] = "int8"
    layout: Literal["channels-last", "as-given"] = "channels-last"
    """`as-given` keeps the input's layout in the file (onnx2tf `-kat`), at the cost of a transpose."""
    python: str = "python3"
    """Python with the runtime on a host that is not this machine."""
    batch: Literal["free", "one"] = "free"
    """`one` leaves the file at one row, as microcontrollers need it."""
    unranged: Literal["dynamic", "float"] = "dynamic"
    """How convolutions and dense layers without a range in the plan run; tflite-micro has no dynamic ones."""


def read_options(target: Target) -> Options:
    """The options of a target.

    Raises:
        TargetError: an unknown key or value, or 16-bit activations for kernels that do not exist.
    """
    known = {field.name for field in fields(Options)}
    for key, value in target.options.items():
        if key not in known:
            raise TargetError(
                f"target {target.name}: unknown option `{key}`", hint=f"known: {', '.join(sorted(known))}"
            )
        if key not in _CHOICES and not isinstance(value, str):
            raise TargetError(f"target {target.name}: option {key} is {value!r}", hint="it is text")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise TargetError(
                f"target {target.name}: option {key} is {value!r}", hint=f"one of: {', '.join(_CHOICES[key])}"
            )
    chosen = Options(**cast("dict[str, BorderType]", dict(target.options)))  # type: ignore[arg-type] # checked above
    if chosen.activations == "int16" and chosen.kernels == "xnnpack":
        raise TargetError(
            f"target {target.name}: XNNPACK has no kernels for int16 activations (about 40 times slower without them)",
            hint="activations: int8, or kernels: reference if the time does not matter",
        )
    return chosen
