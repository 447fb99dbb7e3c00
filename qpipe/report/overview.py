"""Many cells at a glance: models × targets, and what to look at first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from qpipe.records.recipe import REFERENCE
from qpipe.records.result import CellResult, RunResult
from qpipe.records.verdict import Decision, Verdict

AWAY = "unavailable"
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

    @property
    def words(self) -> tuple[str, ...]:
        """How each cell stands; nothing where there is none."""
        return tuple(standing(cell) if cell else "" for cell in self.cells)

    @property
    def is_quiet(self) -> bool:
        """Whether no cell is in trouble."""
        return {*self.words} <= {Decision.PASS.value, AWAY, ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What keeps some cells from a PASS, with all cells that it keeps."""

    word: str
    """`failed`, `crashed`, …, `FAIL`, `INCONCLUSIVE` or `unavailable`."""
    what: str
    hint: str
    labels: tuple[str, ...]
    worst: str = ""
    """What the gate says of the first of these cells."""

    @property
    def named(self) -> str:
        """Some of the cells, and how many there are beside them; a target or a model that all share is named once."""
        if len(self.labels) <= NAMED:
            return ", ".join(self.labels)
        parts = [label.rsplit("/", 2) for label in self.labels]
        models, recipes, targets = (tuple(dict.fromkeys(column)) for column in zip(*parts, strict=True))
        if len(targets) == len(recipes) == 1:
            where = "" if self.what.startswith(targets[0]) else f" on {targets[0]}"
            return _some(models) + where
        if len(models) == len(recipes) == 1:
            return f"{models[0]} on {_some(targets)}"
        if len(recipes) == 1:
            return f"{_some(models)} on {len(targets)} targets"
        return _some(self.labels)


def glance(cells: Iterable[CellResult]) -> tuple[tuple[str, ...], tuple[Line, ...]]:
    """The targets, and a line per model and recipe, in order of appearance; references are left out."""
    shown = [cell for cell in cells if cell.recipe != REFERENCE]
    targets = tuple(dict.fromkeys(cell.target for cell in shown))
    several = len({cell.recipe for cell in shown}) > 1
    lines: dict[str, dict[str, CellResult]] = {}
    for cell in shown:
        lines.setdefault(f"{cell.model}/{cell.recipe}" if several else cell.model, {})[cell.target] = cell
    return targets, tuple(Line(name=name, cells=tuple(map(found.get, targets))) for name, found in lines.items())


def told_apart(results: Sequence[RunResult]) -> tuple[tuple[CellResult, ...], ...]:
    """The cells of each run; a model of several has its pipeline's name before its own, and the run's where that helps.

    Two runs of one pipeline would else be one line, the later of them.
    """
    models = Counter(model for result in results for model in {cell.model for cell in result.cells})
    names = Counter(result.pipeline for result in results)
    firsts = [
        f"{result.pipeline}@{result.run_id[:8]}" if names[result.pipeline] > 1 else result.pipeline
        for result in results
    ]
    return tuple(
        tuple(replace(cell, model=f"{first}/{cell.model}") if models[cell.model] > 1 else cell for cell in result.cells)
        for result, first in zip(results, firsts, strict=True)
    )


def folded(lines: Sequence[Line]) -> tuple[Line, ...]:
    """The lines; where they are many, those that have the same words and no trouble are one line at the end."""
    if len(lines) <= MANY:
        return tuple(lines)
    quiet: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        if line.is_quiet:
            quiet.setdefault(line.words, []).append(line)
    alike = [group for group in quiet.values() if len(group) > NAMED]
    gone = {id(line) for group in alike for line in group}
    told = (Line(name=f"{len(group)} others", cells=group[0].cells) for group in alike)
    return (*(line for line in lines if id(line) not in gone), *told)


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
    """`3 FAIL, 50 unavailable, 180 PASS`."""
    return ", ".join(f"{count} {word}" for word, count in words_counted(cells)) or "nothing was judged"


def words_counted(cells: Iterable[CellResult]) -> tuple[tuple[str, int], ...]:
    """How many cells stand under each word, the worst first; references are left out."""
    words = [standing(cell) for cell in cells if cell.recipe != REFERENCE]
    return tuple((word, words.count(word)) for word in sorted(set(words), key=_rank))


def look_first(cells: Sequence[CellResult]) -> tuple[Trouble, ...]:
    """The troubles, the worst first; cells that have the same one stand together, those furthest from a limit first.

    A float model is not named beside an engine made of it that has the same trouble, nor where its target is away.
    """
    told = {(cell.model, cell.target, standing(cell), _what(cell)) for cell in cells if cell.recipe != REFERENCE}
    found: dict[tuple[str, str, str], list[CellResult]] = {}
    for cell in cells:
        word, what = standing(cell), _what(cell)
        repeats = cell.recipe == REFERENCE and ((cell.model, cell.target, word, what) in told or word == AWAY)
        if word not in (Decision.PASS.value, "reference") and not repeats:
            found.setdefault((word, what, cell.hint), []).append(cell)
    troubles = [_trouble(word, what, hint, group) for (word, what, hint), group in found.items()]
    return tuple(sorted(troubles, key=lambda one: _rank(one.word)))


def _trouble(word: str, what: str, hint: str, cells: Sequence[CellResult]) -> Trouble:
    ordered = sorted(cells, key=_beyond, reverse=True)
    measured = [one for one in decisive(ordered[0]) if one.observed is not None]
    worst = "; ".join(f"{one.reason}. {one.advice}" if one.advice else one.reason for one in measured)
    return Trouble(
        word=word,
        what=what,
        hint=hint or "; ".join(dict.fromkeys(one.advice for one in decisive(ordered[0]) if one not in measured)),
        labels=tuple(cell.label for cell in ordered),
        worst=worst if ordered[0].status == "ok" else "",
    )


def _beyond(cell: CellResult) -> float:
    """How far a cell that failed is from its limit, in parts of it: the furthest of its gates."""
    if cell.decision is not Decision.FAIL:
        return 0.0
    return max(
        (
            abs(one.observed - one.limit) / (abs(one.limit) or 1.0)
            for one in decisive(cell)
            if one.observed is not None and one.limit is not None
        ),
        default=0.0,
    )


def _some(names: Sequence[str]) -> str:
    left = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {left} more" if left > 0 else "")


def _what(cell: CellResult) -> str:
    """The reason; that of a gate where it says the same of many cells, else the names of the gates."""
    if cell.status == AWAY:
        return cell.reason if cell.reason.startswith(cell.target) else f"{cell.target}: {cell.reason}"
    if cell.status != "ok":
        return cell.reason
    verdicts = decisive(cell)
    unmeasured = {one.reason for one in verdicts if one.observed is None}
    if len(unmeasured) == 1 and all(one.observed is None for one in verdicts):
        return unmeasured.pop()
    return ", ".join(one.gate for one in verdicts) or "no required gate judges it"


def _rank(word: str) -> int:
    """Broken cells first, then those that failed, then what is undecided, then what is not here, then what passed."""
    known = (Decision.FAIL.value, Decision.INCONCLUSIVE.value, AWAY, Decision.PASS.value)
    return known.index(word) + 1 if word in known else 0
