"""Reach MLflow: at once where it may be far, beside the children's work where it is a file on this machine."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.flow.publishing import open_tracker, start_run

if TYPE_CHECKING:
    from qpipe.flow.options import RunOptions
    from qpipe.flow.workplace import Workplace
    from qpipe.tracking import Tracker

MAGIC = b"SQLite format 3\0"
"""First bytes of a database. Source: sqlite.org/fileformat.html, section 1.3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """MLflow and the parent run in it; None for an offline run."""

    tracker: Tracker | None
    parent: str | None


class Reaching:
    """MLflow, asked for now and needed later."""

    def __init__(self, reached: Future[Reached]) -> None:
        self._reached = reached

    def result(self) -> Reached:
        """Wait for it.

        Raises:
            QpipeError: as `open_tracker` and `start_run`.
        """
        return self._reached.result()


def reach(workplace: Workplace, options: RunOptions, run_id: str) -> Reaching:
    """Begin to reach MLflow.

    Importing it and making a database take seconds of CPU that children can use: a local sqlite database, which
    cannot be away, is opened beside them. Everything else has answered when this returns.

    Raises:
        UnreachableError: no answer in time (exit code 2).
    """
    from qpipe.tracking import joined_run

    join = None if options.offline else options.join or joined_run()  # asked here: MLflow's active run is the thread's

    def work() -> Reached:
        tracker = open_tracker(workplace, options)
        return Reached(tracker=tracker, parent=start_run(tracker, workplace, run_id, join))

    if options.offline or join is not None or not _is_local(workplace, options):
        done: Future[Reached] = Future()
        done.set_result(work())
        return Reaching(done)
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="qpipe-mlflow")
    reached = pool.submit(work)
    pool.shutdown(wait=False)
    return Reaching(reached)


def _is_local(workplace: Workplace, options: RunOptions) -> bool:
    """Whether MLflow is an sqlite file that is there and is one, or can be made in a folder that is there."""
    from qpipe.tracking import resolve_uri, sqlite_file

    file = sqlite_file(resolve_uri(options.tracking_uri or workplace.pipeline.tracking.uri, folder=Path.cwd()))
    if file is None:
        return False
    if not file.exists():
        return file.parent.is_dir()
    with file.open("rb") as opened:
        return opened.read(len(MAGIC)) == MAGIC
