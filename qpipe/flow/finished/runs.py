"""Runs that the store remembers, so that they can be judged, reported and promoted later, with or without MLflow."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from qpipe.errors import ConfigError, nearest
from qpipe.records.codec import decode, encode
from qpipe.records.pipeline import Pipeline, TrackingSpec
from qpipe.records.result import CellResult, RunResult

if TYPE_CHECKING:
    from qpipe.flow.workplace import Workplace
    from qpipe.store import Store

SPACE = "runs"
INDEX = "index"
RECENT = 1000
"""Runs that are known by the beginning of their id; all others by the whole of it."""
LOOKED_THROUGH = 60
"""Runs whose cells are named where one is asked for that none has."""
WHOLE = "[0-9a-f]{16}"
_HIDDEN = "***"
"""Where an address as it is printed had a password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRun:
    """A finished run with the pipeline that asked for it."""

    pipeline: Pipeline
    result: RunResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Ids of the latest runs, newest first."""

    run_ids: tuple[str, ...] = ()


def keep_run(workplace: Workplace, result: RunResult) -> None:
    """Remember a finished run under its id."""
    keep_result(workplace.store, KeptRun(pipeline=workplace.pipeline, result=result))


def keep_result(store: Store, kept: KeptRun) -> None:
    """Remember a run under its id, as the latest; a password of MLflow's is not kept: stores are shared."""
    result = kept.result
    store.remember(SPACE, result.run_id, encode(replace(kept, pipeline=_without_password(kept.pipeline))))
    with store.lock("runs"):
        known = recall_index(store).run_ids
        latest = (result.run_id, *(one for one in known if one != result.run_id))[:RECENT]
        store.remember(SPACE, INDEX, encode(Index(run_ids=latest)))


def kept_uri(tracking: TrackingSpec, asked: str | None) -> str | None:
    """Where a kept run is in MLflow: as asked for now, else as its pipeline said.

    Raises:
        ConfigError: that takes a password, which is not kept.
    """
    if asked is not None or tracking.uri is None or _HIDDEN not in tracking.uri:
        return asked or tracking.uri
    from qpipe.tracking import address

    now = os.environ.get("MLFLOW_TRACKING_URI", "")
    if address(now) == tracking.uri:
        return now
    raise ConfigError(
        f"the run was logged at {tracking.uri}, whose password is not kept",
        hint="give the whole address with --tracking-uri or MLFLOW_TRACKING_URI",
    )


def _without_password(pipeline: Pipeline) -> Pipeline:
    if pipeline.tracking.uri is None:
        return pipeline
    from qpipe.tracking import address

    return replace(pipeline, tracking=replace(pipeline.tracking, uri=address(pipeline.tracking.uri)))


def recall_index(store: Store) -> Index:
    """The latest runs."""
    text = store.recall(SPACE, INDEX)
    return Index() if text is None else decode(Index, text)


def find_run(store: Store, run_id: str) -> KeptRun | None:
    """The run of exactly that id, or None."""
    text = store.recall(SPACE, run_id)
    return None if text is None else decode(KeptRun, text)


def recall_run(store: Store, run_id: str) -> KeptRun:
    """The run of that id, of a unique beginning of one, or `last`; an MLflow run id works too.

    Raises:
        ConfigError: there is none, or several; the hint lists the latest.
    """
    known = recall_index(store).run_ids
    if run_id == "last" and known:
        run_id = known[0]
    matching = [one for one in known if run_id and one.startswith(run_id)]
    if not matching and re.fullmatch(WHOLE, run_id) and store.recall(SPACE, run_id) is not None:
        matching = [run_id]
    matching = matching or _by_mlflow_id(store, known, run_id)
    text = store.recall(SPACE, matching[0]) if len(matching) == 1 else None
    if text is None:
        what = (
            f"{len(matching)} runs begin with {run_id}"
            if matching
            else f"no run {run_id or repr(run_id)}{nearest(run_id, known)}"
        )
        listed = ", ".join(known[:5]) or "none yet: qpipe run PIPELINE.yaml"
        raise ConfigError(f"{what} in the store {store.location}", hint=f"latest runs: {listed}")
    return decode(KeptRun, text)


def find_cell(run: RunResult, wanted: str | None) -> tuple[CellResult, ...]:
    """The cells of a run that a user means by a label or the beginning of a key; all judged cells for None.

    Raises:
        ConfigError: no such cell; the hint lists them.
    """
    judged = tuple(cell for cell in run.cells if cell.decision is not None)
    if wanted is None:
        return judged
    found = tuple(cell for cell in run.cells if cell.label == wanted or (wanted and cell.key.startswith(wanted)))
    if not found:
        labels = [cell.label for cell in run.cells]
        raise ConfigError(
            f"run {run.run_id} has no cell {wanted}{nearest(wanted, labels)}", hint=f"cells: {', '.join(labels)}"
        )
    return found


def is_label(what: str, cell: str | None) -> bool:
    """Whether a user means a cell by its label, and not a run by its id (of which `cell` may name one)."""
    return "/" in what and cell is None


def latest_with_cell(store: Store, wanted: str) -> tuple[KeptRun, str]:
    """The newest run that holds a cell, and the cell's label there: each pipeline of many has a run of its own.

    `wanted` is the label, with or without the name of its pipeline before it.

    Raises:
        ConfigError: no run that is known by its beginning holds it; the hint lists cells of a like name.
    """
    known = recall_index(store).run_ids
    for run_id in known:
        kept = _recall_with(store, run_id, wanted.rsplit("/", 3)[-3:])
        for cell in kept.result.cells if kept is not None else ():
            if kept is not None and wanted in (cell.label, f"{kept.pipeline.name}/{cell.label}"):
                return kept, cell.label
    labels = dict.fromkeys(
        cell.label
        for run_id in known[:LOOKED_THROUGH]
        if (kept := find_run(store, run_id)) is not None
        for cell in kept.result.cells
    )
    alike = get_close_matches(wanted, labels, n=5, cutoff=0.5) or list(labels)[:5]
    listed = ", ".join(alike) or "none yet: qpipe run PIPELINE.yaml"
    raise ConfigError(f"no run in the store {store.location} has a cell {wanted}", hint=f"cells there are: {listed}")


def _recall_with(store: Store, run_id: str, names: list[str]) -> KeptRun | None:
    """The run, if its text has all these names: reading one that has not would take a hundred times as long."""
    text = store.recall(SPACE, run_id)
    return decode(KeptRun, text) if text is not None and all(name in text for name in names) else None


def _by_mlflow_id(store: Store, known: tuple[str, ...], run_id: str) -> list[str]:
    found = []
    for one in known:
        text = store.recall(SPACE, one)
        if text is not None and run_id in text and decode(KeptRun, text).result.mlflow_run_id == run_id:
            found.append(one)
    return found
