"""The `options:` section of a target of this backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["basic", "extended", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How onnxruntime loads an engine of this target."""

    graph_optimization: Level = "all"
    """`all` writes quantized graphs for x86-64 in onnxruntime's own integer operators; `extended` leaves Q/DQ graphs as
    they are and layouts too, `basic` leaves out the fusions into integer kernels as well."""
    memory_arena: bool = True
    """Keep freed memory for the next run: faster, and a higher peak."""
    mobile: bool = False
    """Write an `.ort` file with the operators that a minimal build needs, and a report on NNAPI and Core ML."""
    python: str = "python3"
    """Python with onnxruntime on a host that is not this machine."""
