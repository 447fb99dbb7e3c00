"""The `options:` of a LiteRT target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BorderType = Literal["float", "int8"]
Kernels = Literal["xnnpack", "reference"]


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

    def __post_init__(self) -> None:
        if self.activations == "int16" and self.kernels == "xnnpack":
            raise ValueError(
                "XNNPACK has no kernels for int16 activations (about 40 times slower without them): "
                "activations: int8, or kernels: reference if the time does not matter"
            )
