"""What a recipe may say about quantization beyond the scheme: range methods, and exceptions by name or pattern."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import onnx_ir as ir

from qpipe.quant.operators import WEIGHTED
from qpipe.records.quantization import STEM, Override, RangeMethod


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantOptions:
    """How to quantize; the hardware is in the scheme."""

    ranges: RangeMethod = "mse"
    percentile: float = 99.999
    weights: Literal["max", "mse"] = "max"
    keep_float: tuple[str, ...] = ()
    """Patterns over node names, `op:TYPE`, or `stem` (what reads a model input directly), that stay float."""
    overrides: tuple[Override, ...] = ()
    pixels_below: int | None = None
    """Pixels of a row below which first convolutions read images on their own grid; None: what the scheme says."""
    others: frozenset[str] = frozenset()
    """Names of nodes that stay float while the cost of another one is measured. No patterns: there may be thousands."""

    def keep(self, node: ir.Node) -> str:
        """Why the recipe keeps this node in float, or an empty string."""
        if node.name in self.others:
            return "another node is looked at"
        patterns = [*self.keep_float, *(override.match for override in self.overrides if override.keep_float)]
        return next((f"the recipe keeps {pattern!r} in float" for pattern in patterns if matches(pattern, node)), "")

    def int4_block(self, node: ir.Node) -> int | None:
        """Block length of this node's int4 weights, or None where it has none."""
        sizes = [item.block_size for item in self.overrides if item.weights == "int4" and matches(item.match, node)]
        return sizes[-1] if sizes else None


def matches(pattern: str, node: ir.Node) -> bool:
    """Whether a pattern names this node: `stem` means weighted operators that read a model input directly."""
    if pattern == STEM:
        data = node.inputs[0] if node.inputs else None
        return node.op_type in WEIGHTED and data is not None and data.is_graph_input()
    if pattern.startswith("op:"):
        return fnmatchcase(node.op_type, pattern[3:])
    return fnmatchcase(node.name or "", pattern)
