"""Stages: the steps of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from qpipe.plugins.backend import Progress, Tensors
from qpipe.records.model import OnnxFile
from qpipe.records.quantization import QuantPlan
from qpipe.records.remark import Remark
from qpipe.records.scheme import Scheme

P = TypeVar("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A model on its way through a recipe; each stage returns a new one."""

    graph: OnnxFile
    statistics: Path | None = None
    """Folder of calibration statistics, once a `calibrate` stage has run."""
    plan: QuantPlan | None = None
    qdq: OnnxFile | None = None
    remarks: tuple[Remark, ...] = ()
    """What is odd about the calibration rows: shown with the cell's result."""


class StageContext(Protocol):
    """What a stage may ask for."""

    @property
    def scheme(self) -> Scheme:
        """The target's arithmetic."""
        ...

    @property
    def workdir(self) -> Path:
        """An empty folder for this stage's files; it is removed once no graph or statistics of the draft lie in it."""
        ...

    @property
    def progress(self) -> Progress:
        """Where to say how far it is."""
        ...

    def calibration(self) -> Iterator[Tensors]:
        """Batches of model inputs, preprocessed; a fresh pass at each call."""
        ...

    def cached(self, key: str, make: Callable[[Path], None]) -> Path:
        """A folder made once per key and kept in the store.

        The key names the parameters and the graph; calibration rows and the plugin's code are added to it.
        """
        ...

    def onnx_file(self, path: Path) -> OnnxFile:
        """The record of a graph that the stage has written."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StageType(Generic[P]):
    """A kind of stage. `params` is a frozen dataclass: its fields are the keys that a recipe may write."""

    name: str
    summary: str
    params: type[P]
    apply: Callable[[Draft, P, StageContext], Draft]
    needs_calibration: bool = False
    operators: Callable[[Scheme], tuple[str, ...]] | None = None
    """Operators of which a graph must have one, by the target's scheme; None where the stage takes any graph."""
