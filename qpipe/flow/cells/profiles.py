"""Profiles of all cells that need one, target by target."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from qpipe.execute.jobs import Contestant
from qpipe.execute.work.pairs import load_pair
from qpipe.execute.work.profiling import Order, Profiled
from qpipe.flow.cells.jobs import Worked, baseline_of
from qpipe.flow.cells.objects import is_done
from qpipe.records.engine import Kind, Unavailable
from qpipe.records.evidence import Evaluation, NotMeasured

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qpipe.execute.children.watch import Watch
    from qpipe.flow.workplace import Workplace


def measure(workplace: Workplace, worked: Sequence[Worked], watch: Watch, stop: threading.Event) -> dict[str, Profiled]:
    """A profile, or the reason why there is none, for every cell that worked and is not in the store, by cell key."""
    found: dict[str, Profiled] = {}
    waiting: list[tuple[list[Worked], Order]] = []
    asked: set[str] = set()
    for group in _groups(worked):
        new = [one for one in group if one.outcome is not None and one.evidence is None and one.cell.key not in asked]
        todo = list({one.cell.key: one for one in new}.values())  # recipes of the same stages share one
        asked |= {one.cell.key for one in todo}  # and so do copies of a model
        if not todo or stop.is_set():
            continue
        reason = _obstacle(workplace, group, todo)
        if reason is not None:
            again = _may_come(workplace, baseline_of(todo[0], group))
            found |= {one.cell.key: Profiled(profile=NotMeasured(reason=reason), again=again) for one in todo}
            continue
        waiting.append((todo, _order(workplace, group, todo)))
    profiles = workplace.executor.profile([order for _, order in waiting], watch=watch, stop=stop)
    for (todo, _), by_label in zip(waiting, profiles, strict=True):
        found |= {one.cell.key: by_label[one.cell.label] for one in todo if one.cell.label in by_label}
    return found


def _groups(worked: Sequence[Worked]) -> Iterator[list[Worked]]:
    """Cells of one model and one target: they share the float engine."""
    keys = dict.fromkeys((one.cell.model.name, one.cell.target.name) for one in worked)
    for model, target in keys:
        yield [one for one in worked if (one.cell.model.name, one.cell.target.name) == (model, target)]


def _obstacle(workplace: Workplace, group: Sequence[Worked], todo: Sequence[Worked]) -> str | None:
    """Why this group cannot be profiled, or None."""
    cell = todo[0].cell
    if not cell.profile:
        return "profiling is switched off"
    state = workplace.offers[cell.target.name].availability.run
    if isinstance(state, Unavailable):
        return state.reason
    baseline = baseline_of(todo[0], group)
    if baseline.outcome is None:
        return f"there is no float engine to compare with: {baseline.reason}"
    return withheld(_kind(workplace, baseline))


def _may_come(workplace: Workplace, baseline: Worked) -> bool:
    """Whether a float engine that is missing may be there at the next run: only a refusal lasts."""
    return baseline.outcome is None and not is_done(workplace.store, baseline.cell.key)


def withheld(kind: Kind) -> str | None:
    """Why times of runs of this kind are not taken, or None."""
    return None if kind == "measured" else f"timings of {kind} runs mean nothing for the hardware: withheld"


def _kind(workplace: Workplace, one: Worked) -> Kind:
    """How the outputs of an engine came to be."""
    evaluation = load_pair(workplace.store.folder(_contestant(one).evaluation)).engine
    return evaluation.kind if isinstance(evaluation, Evaluation) else "measured"


def _order(workplace: Workplace, group: Sequence[Worked], todo: Sequence[Worked]) -> Order:
    baseline = baseline_of(todo[0], group)
    cell = baseline.cell
    return Order(
        store=workplace.store.location,
        target=cell.target,
        baseline=_contestant(baseline),
        others=tuple(_contestant(one) for one in todo if one is not baseline),
        data=cell.data,
        signature=cell.model.signature,
        timing=cell.timing,
        role=cell.role,
        kind="measured",
    )


def _contestant(one: Worked) -> Contestant:
    if one.outcome is None:
        raise ValueError(f"{one.cell.label} has no engine")
    return Contestant(label=one.cell.label, engine=one.outcome.engine, evaluation=one.outcome.evaluation)
