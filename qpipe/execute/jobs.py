"""What is sent to a child process and what comes back: plain records, shipped as JSON."""

from __future__ import annotations

from dataclasses import dataclass

from qpipe.records.cell import Cell, Timing
from qpipe.records.data import DataSpec, RoleName
from qpipe.records.evidence import Evaluation, NotMeasured
from qpipe.records.explanation import Attribution
from qpipe.records.model import Model
from qpipe.records.remark import Remark
from qpipe.records.target import Target
from qpipe.records.tensors import Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceJob:
    """Run the float model as given over the rows of one role, once per model and data digest."""

    store: str
    model: Model
    data: DataSpec
    role: RoleName
    fresh: str = ""
    """As that of the cells that need them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellJob:
    """Prepare, build and evaluate one cell."""

    store: str
    cell: Cell
    fresh: str = ""
    """A token that makes every key of this job new, so that nothing is taken from the store; usually empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOutcome:
    """Objects of the store that a finished cell job has made or found."""

    engine: str
    """Object that holds the engine folder."""
    evaluation: str
    """Object with `evaluation.json` (an Evaluation, or why it was not measured) and `evaluation.npz`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPair:
    """`evaluation.json`: what the engine and the float model as given are worth on the same rows."""

    engine: Evaluation | NotMeasured
    reference: Evaluation | NotMeasured
    attribution: Attribution | None = None
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One engine of a timed run: its label and the object that holds it."""

    label: str
    engine: str
    evaluation: str
    """Object whose evaluated outputs the timed outputs must equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingJob:
    """One process of a profile: all engines of one target, interleaved."""

    store: str
    target: Target
    contestants: tuple[Contestant, ...]
    data: DataSpec
    signature: Signature
    timing: Timing
    number: int
    """Which of the processes this is: it turns the order of the first round."""
    samples: str
    """Where to write the samples."""
    role: RoleName = "gate"
    """Whose rows are fed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryJob:
    """One process that loads and runs one engine, for its peak resident set."""

    store: str
    target: Target
    contestant: Contestant
    data: DataSpec
    signature: Signature
    batch: int
    role: RoleName = "gate"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingJob:
    """Rank the quantized nodes of a static recipe by what each one costs."""

    store: str
    cell: Cell
    rows: int = 16
    """At most so many of the role's first rows: a run of them for each node is what the ranking costs."""
    seconds: float | None = None
    """After which nodes that are left are not ranked; None for no end."""
    fresh: str = ""
    """As that of cells: with a token it is ranked, and calibrated, again where that was done before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Patterns that name one node each, the most sensitive first; none for a recipe without `quantize`."""

    nodes: tuple[str, ...] = ()
    smooths: bool = False
    """Whether the recipe's `smooth` found channels to move."""
    equalizes: bool = False
    """Whether two layers of the graph can be evened out."""
    problem: str = ""
    """Why nodes were not ranked, or not all."""
