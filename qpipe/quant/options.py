"""What a recipe may say about quantization beyond the scheme: range methods, and exceptions by name or pattern."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import onnx_ir as ir

from qpipe.quant.ranges import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """An exception for the nodes that `match` names: a pattern over node names, or `op:TYPE`."""

    match: str
    keep_float: bool = False
    ranges: Method | None = None
    """Range method of the activations that the node reads and writes."""
    per_channel: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantOptions:
    """How to quantize; the hardware is in the scheme."""

    ranges: Method = "mse"
    percentile: float = 99.999
    weights: Literal["max", "mse"] = "max"
    keep_float: tuple[str, ...] = ()
    """Patterns over node names, or `op:TYPE`, that stay float."""
    overrides: tuple[Override, ...] = ()

    def keep(self, node: ir.Node) -> str:
        """Why the recipe keeps this node in float, or an empty string."""
        patterns = [*self.keep_float, *(override.match for override in self.overrides if override.keep_float)]
        return next((f"the recipe keeps {pattern!r} in float" for pattern in patterns if matches(pattern, node)), "")


def matches(pattern: str, node: ir.Node) -> bool:
    """Whether a pattern names this node."""
    if pattern.startswith("op:"):
        return fnmatchcase(node.op_type, pattern[3:])
    return fnmatchcase(node.name or "", pattern)
