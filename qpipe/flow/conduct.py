"""One whole run: work, measure, decide, log, promote. Results come back as a value."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from qpipe.errors import Interrupted, TrackingError
from qpipe.execute.watch import Silence
from qpipe.flow.checking import check_before_work
from qpipe.flow.deciding import decide
from qpipe.flow.evidence import assemble
from qpipe.flow.exitcodes import UNABLE, run_code, worst
from qpipe.flow.identity import run_identity
from qpipe.flow.kept import keep_run
from qpipe.flow.measuring import measure
from qpipe.flow.publishing import finish, open_tracker, publish, start_run
from qpipe.flow.working import work
from qpipe.records.result import RunResult

if TYPE_CHECKING:
    from qpipe.execute.watch import Watch
    from qpipe.flow.options import RunOptions
    from qpipe.flow.workplace import Workplace


def conduct(
    workplace: Workplace, options: RunOptions, watch: Watch | None = None, stop: threading.Event | None = None
) -> RunResult:
    """Run a pipeline to its end.

    Raises:
        QpipeError: with code 2, before any work; failures of cells are results, not errors.
        Interrupted: `stop` was set; what was finished is in the store.
    """
    watch, stop = watch or Silence(), stop or threading.Event()
    warnings = check_before_work(workplace)
    run_id = run_identity(workplace, fresh=options.fresh)
    tracker = open_tracker(workplace, options)
    parent = start_run(tracker, workplace, options, run_id)
    worked = work(workplace, options, watch, stop)
    profiled = measure(workplace, worked, watch, stop)
    if stop.is_set():
        if tracker is not None and parent is not None:
            tracker.finish(parent, "KILLED")
        raise Interrupted("interrupted", hint="run the same command again: it goes on from what is finished")
    evidence = assemble(worked, profiled, workplace.store)
    results = decide(workplace, worked, evidence, run_id=run_id, fresh=options.fresh)
    for result in results:
        warnings += workplace.registry.cell_finished(result)
    published = publish(tracker, parent, workplace, results, promote=options.promote)
    final = RunResult(
        run_id=run_id,
        mlflow_run_id=published.mlflow_run_id,
        pipeline=workplace.pipeline.name,
        exit_code=run_code(results, logged=published.problem is None),
        warnings=(*warnings, *published.warnings),
        cells=results,
        promoted=published.promoted,
    )
    try:
        finish(tracker, parent, workplace, final)
    except TrackingError as error:
        final = replace(final, exit_code=worst((final.exit_code, UNABLE)), warnings=(*final.warnings, error.message))
    keep_run(workplace, final)
    return final
