"""One whole run: work, measure, decide, log, promote. Results come back as a value."""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from qpipe.errors import Interrupted, StoreError, TrackingError
from qpipe.execute.children.watch import Silence
from qpipe.flow.cells.evidence import assemble
from qpipe.flow.cells.jobs import has_work, work
from qpipe.flow.cells.profiles import measure
from qpipe.flow.cells.verdicts import decide, import_scipy
from qpipe.flow.exitcodes import UNABLE, run_code, worst
from qpipe.flow.finished.report import draw
from qpipe.flow.finished.runs import keep_run
from qpipe.flow.garbage import looked_through_again
from qpipe.flow.identity import run_identity
from qpipe.flow.preflight.checks import check_before_work
from qpipe.flow.publish.connection import Reached, reach
from qpipe.flow.publish.log import finish, publish
from qpipe.flow.publish.settled import database_state, settle, settled
from qpipe.flow.publish.unlogged import forget_unlogged, keep_unlogged
from qpipe.flow.remarks import remarks
from qpipe.flow.search.search import search
from qpipe.flow.stopping import heed
from qpipe.records.result import RunResult
from qpipe.report import NO_PLOTS

if TYPE_CHECKING:
    from qpipe.execute.children.watch import Watch
    from qpipe.flow.cells.jobs import Worked
    from qpipe.flow.options import RunOptions
    from qpipe.flow.workplace import Workplace
    from qpipe.records.result import CellResult, SearchTrial


def conduct(
    workplace: Workplace, options: RunOptions, watch: Watch | None = None, stop: threading.Event | None = None
) -> RunResult:
    """Run a pipeline to its end.

    Raises:
        QpipeError: with code 2, before any work; failures of cells are results, not errors.
        Interrupted: `stop` was set; what was finished is in the store.
    """
    workplace.store.check_writable()  # a mistake of the user's, so told before anything is read there
    watch, run_id = watch or Silence(), run_identity(workplace, fresh=options.fresh)
    if not options.fresh and (before := settled(workplace, options, run_id, watch)) is not None:
        keep_run(workplace, before)  # as the latest
        return before
    with looked_through_again(), ExitStack() as held, ExitStack() as hands:
        hands.enter_context(workplace.executor.ready(work=has_work(workplace, options)))
        return _conduct(workplace, options, watch, stop or threading.Event(), hands, held=held, run_id=run_id)


def _conduct(
    workplace: Workplace,
    options: RunOptions,
    watch: Watch,
    stop: threading.Event,
    hands: ExitStack,
    *,
    held: ExitStack,
    run_id: str,
) -> RunResult:
    warnings = check_before_work(workplace)
    reaching = reach(workplace, options, run_id, watch, stop, held=held)
    threading.Thread(target=import_scipy, name="qpipe-statistics").start()  # deciding waits for it, work does not
    try:
        held.enter_context(workplace.store.at_work())
        if workplace.pipeline.search is not None:
            reaching.wait()  # a search times its candidates at once
        searched = search(workplace, options, watch, stop)
        workplace, warnings = searched.workplace, (*warnings, *searched.warnings)
        worked = work(workplace, options, watch, stop)
        hands.close()
        if any(cell.profile for cell in workplace.cells):
            workplace.nursery.end()  # nothing of ours is there while something is timed
        reached = reaching.wait()  # it takes CPU: before anything is timed
        results = _judged(workplace, worked, watch, stop, run_id=run_id, fresh=options.fresh)
        warnings += remarks(workplace, results)
        return _published(
            reached, workplace, options, results, stop, run_id=run_id, warnings=warnings, trials=searched.trials
        )
    except BaseException as error:
        cause = reaching.error  # now: what MLflow says once nobody wants it any more is no reason
        with suppress(StoreError):  # why the run ends is more important
            workplace.store.clean()
        reaching.give_up(interrupted=isinstance(error, Interrupted | KeyboardInterrupt))
        if cause is not None and error is not cause:
            raise cause from error  # it is why work was stopped
        raise


def _judged(
    workplace: Workplace,
    worked: tuple[Worked, ...],
    watch: Watch,
    stop: threading.Event,
    *,
    run_id: str,
    fresh: bool,
) -> tuple[CellResult, ...]:
    profiled = measure(workplace, worked, watch, stop)
    heed(stop)
    evidence = assemble(worked, profiled, workplace.store)
    return decide(workplace, worked, evidence, run_id=run_id, fresh=fresh)


def _published(
    reached: Reached,
    workplace: Workplace,
    options: RunOptions,
    results: tuple[CellResult, ...],
    stop: threading.Event,
    *,
    run_id: str,
    warnings: tuple[str, ...],
    trials: tuple[SearchTrial, ...],
) -> RunResult:
    """Logged and promoted as far as MLflow answers; what it has not seen is kept for `qpipe sync`."""
    tracker, parent = reached.tracker, reached.parent
    alone = reached.begun == database_state(workplace, options)  # while this run worked, nobody wrote
    with workplace.store.scratch() as scratch:
        plots = NO_PLOTS if tracker is None else draw(results, workplace.store, scratch)
        published = publish(tracker, parent, workplace, results, plots=plots, promote=options.promote, stop=stop)
        final = RunResult(
            run_id=run_id,
            mlflow_run_id=published.mlflow_run_id,
            pipeline=workplace.pipeline.name,
            exit_code=run_code(results, logged=published.problem is None),
            warnings=(*warnings, *published.warnings),
            cells=results,
            promoted=published.promoted,
            search=trials,
        )
        lost = published.lost
        try:
            if not lost:
                finish(tracker, parent, workplace, final, plots=plots, stop=stop)
                reached.end()
        except TrackingError as error:
            lost = True
            final = replace(
                final,
                exit_code=worst((final.exit_code, UNABLE)),
                warnings=(*final.warnings, f"{error.message} ({error.hint})"),
            )
    keep_run(workplace, final)
    if lost or tracker is None:
        keep_unlogged(workplace, options, final)
    else:
        forget_unlogged(workplace.store, run_id)
        if published.problem is None:
            settle(workplace, options, final, since=reached.before if alone else None)
    return final
