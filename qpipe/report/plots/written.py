"""Which plots there are, and under which names they are written."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qpipe.records.recipe import REFERENCE
from qpipe.records.result import CellResult
from qpipe.report.plots.latencies import plot_latencies
from qpipe.report.plots.slices import plot_slices
from qpipe.report.plots.tradeoff import comparable, plot_tradeoff

COMPARING = "quality-latency"
"""How the names of plots begin that compare cells."""
LONGEST = 160
"""Bytes of a label in the name of a file, of which most systems allow 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plots:
    """The files of a run's plots."""

    files: tuple[Path, ...] = ()
    cells: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Those of them that show a cell, by its label."""

    @property
    def shared(self) -> tuple[Path, ...]:
        """Those that compare cells."""
        return tuple(path for path in self.files if path.name.startswith(COMPARING))

    def of(self, cell: CellResult) -> tuple[Path, ...]:
        """What shows this cell."""
        return self.cells.get(cell.label, ())


NO_PLOTS = Plots()


def write_plots(cells: tuple[CellResult, ...], evidence: Mapping[str, Path], folder: Path) -> Plots:
    """Every plot that the evidence allows, as `.svg` files in `folder`. `evidence`: folders by cell key."""
    files, found = [], {cell.label: list[Path]() for cell in cells}
    for index, group in enumerate(comparable(cells)):
        files.append(plot_tradeoff(group, folder / f"{COMPARING}{f'-{index + 1}' if index else ''}.svg"))
        for cell in group:
            found[cell.label].append(files[-1])
    names = Counter(slug(cell.label) for cell in cells)
    for cell in cells:
        name = slug(cell.label)
        if names[name] > 1 or len(name.encode()) > LONGEST:
            name = f"{name[:40]}-{hashlib.sha256(cell.label.encode()).hexdigest()[:12]}"
        own = tuple(_own(cell, evidence.get(cell.key), folder, name))
        files += own
        found[cell.label] += own
    return Plots(files=tuple(files), cells={label: tuple(paths) for label, paths in found.items()})


def slug(text: str) -> str:
    """A label as a part of a file name."""
    return "".join(char if char.isalnum() or char in "-_." else "-" for char in text)


def _own(cell: CellResult, evidence: Path | None, folder: Path, ending: str) -> Iterator[Path]:
    """The plots that show one cell alone."""
    from qpipe.measure.samples import FILE, load_samples

    if evidence is not None and cell.recipe != REFERENCE and (evidence / FILE).is_file():
        yield plot_latencies(cell, load_samples(evidence / FILE), folder / f"latency-{ending}.svg")
    for verdict in cell.verdicts:
        if any(part.observed is not None for part in verdict.slices):
            yield plot_slices(cell, verdict, folder / f"slices-{ending}-{slug(verdict.gate)}.svg")
