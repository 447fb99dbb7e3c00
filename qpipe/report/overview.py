"""Many cells at a glance: models × targets, and what to look at first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qpipe.records.recipe import REFERENCE
from qpipe.records.result import CellResult
from qpipe.records.verdict import Decision, Verdict

MANY = 12
"""Judged cells from which on a run is shown at a glance first."""
NAMED = 3
"""Cells that a trouble of many names."""
TROUBLES = 20
"""Troubles that are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the overview: a model (and recipe, where there are several) on each target."""

    name: str
    cells: tuple[CellResult | None, ...]
    """One per target; None where the model was not asked for there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What keeps some cells from a PASS, with all cells that it keeps."""

    word: str
    """`failed`, `crashed`, …, `FAIL`, `INCONCLUSIVE` or `unavailable`."""
    what: str
    hint: str
    labels: tuple[str, ...]

    @property
    def named(self) -> str:
        """Some of the cells, and how many there are beside them."""
        left = len(self.labels) - NAMED
        return ", ".join(self.labels[:NAMED]) + (f" and {left} more" if left > 0 else "")


def glance(cells: Iterable[CellResult]) -> tuple[tuple[str, ...], tuple[Line, ...]]:
    """The targets, and a line per model and recipe, in order of appearance; references are left out."""
    shown = [cell for cell in cells if cell.recipe != REFERENCE]
    targets = tuple(dict.fromkeys(cell.target for cell in shown))
    several = len({cell.recipe for cell in shown}) > 1
    lines: dict[str, dict[str, CellResult]] = {}
    for cell in shown:
        lines.setdefault(f"{cell.model}/{cell.recipe}" if several else cell.model, {})[cell.target] = cell
    return targets, tuple(Line(name=name, cells=tuple(map(found.get, targets))) for name, found in lines.items())


def are_many(cells: Iterable[CellResult]) -> bool:
    """Whether a table of these cells is too long to be read from its beginning."""
    return sum(cell.decision is not None for cell in cells) > MANY


def standing(cell: CellResult) -> str:
    """One word for a cell: its decision, or why it has none that could be measured."""
    if cell.status != "ok":
        return cell.status
    return cell.decision.value if cell.decision else "reference"


def decisive(cell: CellResult) -> tuple[Verdict, ...]:
    """Verdicts of the required gates that made the cell's decision."""
    return tuple(one for one in cell.verdicts if one.required and one.decision is cell.decision)


def counted(cells: Iterable[CellResult]) -> str:
    """`180 PASS, 3 FAIL, 50 unavailable`."""
    words = [standing(cell) for cell in cells if cell.recipe != REFERENCE]
    return ", ".join(f"{words.count(word)} {word}" for word in sorted(set(words), key=_rank)) or "nothing was judged"


def look_first(cells: Sequence[CellResult]) -> tuple[Trouble, ...]:
    """The troubles, the worst first; cells that have the same one stand together."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        word = standing(cell)
        if word in (Decision.PASS.value, "reference"):
            continue
        found.setdefault((word, _what(cell), cell.hint), []).append(cell.label)
    troubles = [
        Trouble(word=word, what=what, hint=hint, labels=tuple(labels)) for (word, what, hint), labels in found.items()
    ]
    return tuple(sorted(troubles, key=lambda one: _rank(one.word)))


def _what(cell: CellResult) -> str:
    """The reason; that of a gate where it says the same of many cells, else the names of the gates."""
    if cell.status == "unavailable":
        return f"{cell.target}: {cell.reason}"
    if cell.status != "ok":
        return cell.reason
    verdicts = decisive(cell)
    unmeasured = {one.reason for one in verdicts if one.observed is None}
    if len(unmeasured) == 1 and all(one.observed is None for one in verdicts):
        return unmeasured.pop()
    return ", ".join(one.gate for one in verdicts) or "no required gate judges it"


def _rank(word: str) -> int:
    """Broken cells first, then those that failed, then what is undecided, then what is not here, then what passed."""
    known = (Decision.FAIL.value, Decision.INCONCLUSIVE.value, "unavailable", Decision.PASS.value)
    return known.index(word) + 1 if word in known else 0
