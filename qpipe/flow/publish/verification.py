"""Verify a registered engine: its digests, its machine, and its answers against the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from qpipe.errors import EngineError
from qpipe.flow.finished.runs import KeptRun, recall_index, recall_run
from qpipe.records.codec import encode
from qpipe.records.evidence import Evaluation

if TYPE_CHECKING:
    from qpipe.execute.children.exits import Exit, ExitError
    from qpipe.records.engine import Engine
    from qpipe.records.result import CellResult
    from qpipe.store import Store
    from qpipe.tracking import Tracker

ENTRY = "qpipe.execute.work.verifying:run_verification"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at; what could not be looked at says so and is never `ok`."""

    what: str
    state: Literal["ok", "broken", "not checked"]
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """All checks of one registered engine."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every check was made and held."""
        return all(check.state == "ok" for check in self.checks)


def verify_engine(uri: str, store: Store, tracker: Tracker) -> Verification:
    """Download a registered engine, re-check every digest, run the sampled rows, compare with its evidence.

    Raises:
        QpipeError: there is no such model version.
    """
    from qpipe.tracking import fetch_engine

    with TemporaryDirectory() as scratch:
        try:
            package = fetch_engine(tracker, uri, Path(scratch))
        except EngineError as error:
            return Verification(checks=(Check(what="digests", state="broken", found=error.message),))
        found = f"{len(package.engine.files)} files of engine {package.engine.digest[:12]}"
        digests = Check(what="digests", state="ok", found=found)
        return Verification(checks=(digests, _answers(package.engine, store)))


def _answers(engine: Engine, store: Store) -> Check:
    """Run the rows that the evaluation sampled, and compare the digest of the outputs."""
    known = _find(engine.digest, store)
    if known is None:
        return Check(what="answers", state="not checked", found=f"no run in {store.location} has measured this engine")
    kept, cell = known
    evaluation = cell.evidence.evaluation if cell.evidence else None
    if not isinstance(evaluation, Evaluation):
        found = "the engine was never evaluated: there is nothing to compare with"
        return Check(what="answers", state="not checked", found=found)
    ended = _run_samples(engine, kept, cell, evaluation)
    if ended.error is not None:
        return Check(what="answers", state="broken", found=_sentence(ended.error))
    same, expected = ended.result == evaluation.outputs_digest, evaluation.outputs_digest[:12]
    verb = "equal" if same else "differ from"
    found = f"outputs of the sampled rows {verb} the evidence {expected}"
    return Check(what="answers", state="ok" if same else "broken", found=found)


def _run_samples(engine: Engine, kept: KeptRun, cell: CellResult, evaluation: Evaluation) -> Exit:
    """The engine in a guarded child of its target's limits, like every engine that qpipe opens."""
    from qpipe.execute.children.guard import run_guarded
    from qpipe.execute.work.verifying import VerifyJob

    target = next(one for one in kept.pipeline.targets if one.name == cell.target)
    job = VerifyJob(engine=str(engine.path), target=target, data=kept.pipeline.data, data_digest=evaluation.data_digest)
    with TemporaryDirectory() as workdir:
        return run_guarded(ENTRY, encode(job), workdir=Path(workdir), limits=target.limits)


def _sentence(error: ExitError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _find(digest: str, store: Store) -> tuple[KeptRun, CellResult] | None:
    """The latest run of this store that has measured the engine."""
    for run_id in recall_index(store).run_ids:
        kept = recall_run(store, run_id)
        for cell in kept.result.cells:
            if cell.engine is not None and cell.engine.digest == digest:
                return kept, cell
    return None
