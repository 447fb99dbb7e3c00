"""Which plots there are, and under which names they are written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qpipe.records.result import CellResult
from qpipe.report.plots.latencies import draw_latencies
from qpipe.report.plots.slices import draw_slices
from qpipe.report.plots.tradeoff import comparable, draw_tradeoff

Drawn = tuple[str, str]
"""Name and content of a file."""


def write_plots(cells: tuple[CellResult, ...], evidence: dict[str, Path], folder: Path) -> tuple[Path, ...]:
    """Every plot that the evidence allows, as `.svg` files in `folder`. `evidence`: folders by cell key."""
    drawn = [
        (f"quality-latency{f'-{index + 1}' if index else ''}.svg", draw_tradeoff(group))
        for index, group in enumerate(comparable(cells))
    ]
    for cell in cells:
        drawn += _own(cell, evidence.get(cell.key), f"-{slug(cell.label)}")
    return tuple(_write(folder / name, content) for name, content in drawn)


def write_cell_plots(
    cell: CellResult, cells: tuple[CellResult, ...], evidence: Path | None, folder: Path
) -> tuple[Path, ...]:
    """The plots of one cell into `folder`, with its place among `cells`, those of its run."""
    groups = (group for group in comparable(cells) if any(one.key == cell.key for one in group))
    drawn = [("quality-latency.svg", draw_tradeoff(group, marked=cell.key)) for group in groups]
    return tuple(_write(folder / name, content) for name, content in (*drawn, *_own(cell, evidence, "")))


def slug(text: str) -> str:
    """A label as a part of a file name."""
    return "".join(char if char.isalnum() or char in "-_." else "-" for char in text)


def _own(cell: CellResult, evidence: Path | None, ending: str) -> Iterator[Drawn]:
    """The plots that show one cell alone."""
    from qpipe.measure.samples import FILE, load_samples

    if evidence is not None and cell.recipe != "none" and (evidence / FILE).is_file():
        yield f"latency{ending}.svg", draw_latencies(cell, load_samples(evidence / FILE))
    for verdict in cell.verdicts:
        if any(part.observed is not None for part in verdict.slices):
            yield f"slices{ending}-{slug(verdict.gate)}.svg", draw_slices(cell, verdict)


def _write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path
