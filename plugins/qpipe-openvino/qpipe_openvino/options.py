"""The `options:` of an OpenVINO target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How an engine is compiled when it is opened."""

    shapes: Literal["free", "fixed"] = "free"
    """`fixed` compiles the engine once more for each shape of inputs that it meets: faster runs, seconds at first."""
