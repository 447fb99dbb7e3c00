"""The quantization plan: what to quantize and how, before any toolchain renders it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qpipe.records.scheme import Scheme

Mode = Literal["static", "dynamic", "weight-only"]
RangeMethod = Literal["minmax", "percentile", "entropy", "mse"]
STEM = "stem"
"""Among patterns over node names: weighted operators that read a model input directly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """An exception for the nodes that `match` names: a pattern over node names, `op:TYPE`, or `stem`."""

    match: str
    keep_float: bool = False
    ranges: RangeMethod | None = None
    """Range method of the activations that the node reads and writes."""
    per_channel: bool | None = None
    weights: Literal["int4"] | None = None
    """`int4`: only the weights are quantized, in blocks of `block_size` along the reduced axis."""
    block_size: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationSpec:
    """Parameters of one activation tensor: real = (q − zero_point) · scale."""

    tensor: str
    dtype: str
    low: float
    """Lower end of the real range after the range method, ≤ 0."""
    high: float
    """Upper end of the real range, ≥ 0."""
    scale: float
    zero_point: int
    shares: str = ""
    """The tensor whose parameters this one repeats (Concat, MaxPool, Reshape), or empty."""
    consumers: tuple[str, ...] = ()
    """Nodes that read the quantized value; empty where every reader does (the producer's kernel writes integers)."""
    method: str = ""
    """How the range was found: `minmax`, `percentile`, `entropy`, `mse`, `bounds`, `grid` (pixels: 256 levels)."""
    clipped: float = 0.0
    """Share of calibration values outside the range, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSpec:
    """How one initializer is quantized."""

    tensor: str
    dtype: str
    bits: int
    symmetric: bool
    axis: int | None
    """Channel axis, or None for per-tensor."""
    block_size: int | None = None
    """Length of a block along the reduced axis (int4), or None."""
    method: str = "max"
    """How scales are found: `max` (largest magnitude), or `mse` (smallest squared error)."""
    nodes: tuple[str, ...] = ()
    """The nodes that read it quantized."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChoice:
    """A quantizable node: quantized, or left in float and why."""

    node: str
    op: str
    quantized: bool
    reason: str = ""
    absorbed_into: str = ""
    """The node whose output quantizer does this Relu's or Clip's work, or empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRange:
    """Smallest and largest value that calibration has met in one model input."""

    name: str
    low: float
    high: float
    narrowest: float = 0.0
    """Smallest range of 16 rows in a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantPlan:
    """Ranges, weight specifications and nodes left in float, for one float graph and scheme."""

    scheme: Scheme
    mode: Mode
    activations: tuple[ActivationSpec, ...]
    weights: tuple[WeightSpec, ...]
    nodes: tuple[NodeChoice, ...]
    notes: tuple[str, ...] = ()
    corrected: tuple[str, ...] = ()
    """Nodes whose bias in the float graph makes up for their rounded weights."""
    inputs: tuple[InputRange, ...] = ()
    """What calibration has met at the model's inputs; empty where nothing was calibrated."""

    def activation(self, tensor: str) -> ActivationSpec | None:
        """The parameters of one tensor, or None where it stays float."""
        return next((spec for spec in self.activations if spec.tensor == tensor), None)

    def left_in_float(self) -> tuple[NodeChoice, ...]:
        """Quantizable nodes that stay float, with reasons."""
        return tuple(choice for choice in self.nodes if not choice.quantized)
