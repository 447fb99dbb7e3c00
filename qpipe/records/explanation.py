"""Why an engine is worse, and why it is slower."""

from __future__ import annotations

from dataclasses import dataclass

from qpipe.records.engine import Placement
from qpipe.records.remark import Remark


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step on the way from the float model to the engine, on the same rows."""

    name: str
    """`float`, `prepared`, `quantized` or `engine`."""
    metric: float | None
    """None without labels, or where it is undefined."""
    sqnr_db: float | None
    """Of the first output against the float model; None where equal, or not finite."""
    note: str = ""
    """Why a step or its SQNR is missing, or what is left out of it."""
    nodes: tuple[str, ...] = ()
    """Nodes that are float in this step and integers in the next, where the step is there to show what they cost."""

    def cost_of_nodes(self, later: Step | None) -> str:
        """In words, what integers in `nodes` cost at the next step; empty without nodes or SQNR on both sides."""
        if not self.nodes or later is None or self.sqnr_db is None or later.sqnr_db is None:
            return ""
        return f"integers in these nodes cost {self.sqnr_db - later.sqnr_db:.1f} dB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Where the loss of one engine comes from: float → prepared → quantized ONNX → engine."""

    role: str
    """Whose rows: those that judged the engine, so that its own outputs and the float model's are at hand."""
    rows: int
    """SQNR is over so many first rows; metrics are over all of them."""
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One quantized activation: how far it is from float once everything before it is quantized too."""

    tensor: str
    node: str
    """The node that writes it, or empty for a model input."""
    op: str
    sqnr_db: float | None
    """10·log10(Σ float² / Σ (float − quantized)²); None where they are equal or not finite."""
    low: float
    high: float
    clipped: float
    """Share of calibration values outside the range, 0 to 1."""
    kernel: str = ""
    """The kernel that computes it, as the runtime names it; empty where that is not known."""
    alone_db: float | None = None
    """The same where everything before it is float: what this layer itself costs; None as above, or not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Everything that `qpipe explain` shows of one cell."""

    cell: str
    metric: str
    role: str
    rows: int
    steps: tuple[Step, ...]
    layers: tuple[Layer, ...]
    placement: Placement | None
    remarks: tuple[Remark, ...]
    beside: tuple[str, ...] = ()
    """What other targets of the same run leave in float, in words: found anew for each run."""
    speed: str = ""
    """What that run measured beside the float engine, in words; empty where it did not."""
    layer_rows: int = 0
    """Layers are compared on so many first rows; 0 in what was written before this was kept."""
