"""Jobs on this machine: a few threads, each waiting for one guarded child at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from qpipe.execute.children.guard import Exit, run_guarded
from qpipe.execute.children.nursery import Nursery
from qpipe.execute.children.watch import Watch
from qpipe.records.target import Limits
from qpipe.store.failures import as_store_error
from qpipe.store.scratch import scratch


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One child process to be: `entry` is `module:function` of a `str → str` function."""

    label: str
    entry: str
    request: str
    limits: Limits
    key: str = ""
    """Names the work (the cell's key), for executors that share work; empty takes the digest of the request."""
    target: str = ""
    """The target that must be offered where this runs; empty for anywhere."""
    files: tuple[Path, ...] = ()
    """Files that the request names by path: an executor may bring them to another machine."""


def run_jobs(
    jobs: Sequence[Job],
    *,
    folder: Path,
    workers: int,
    watch: Watch,
    stop: threading.Event,
    done: Callable[[Job, Exit], None],
    nursery: Nursery | None = None,
) -> None:
    """Run all jobs, `workers` at a time; `done` is called as each ends, from its thread.

    When `stop` is set, running children are killed and the rest are not started.

    Raises:
        BaseException: whatever `done` raises, after the running children have ended.
    """
    with ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="qpipe-cell") as pool:
        futures = [pool.submit(_run_one, job, folder, watch, stop, done, nursery) for job in jobs]
        try:
            for future in futures:
                future.result()
        except BaseException:
            stop.set()
            raise


def _run_one(  # noqa: PLR0917  (what `run_jobs` was given)
    job: Job,
    folder: Path,
    watch: Watch,
    stop: threading.Event,
    done: Callable[[Job, Exit], None],
    nursery: Nursery | None,
) -> None:
    if stop.is_set():
        return
    watch.begin(job.label)
    ended = run_job(job, folder, watch, stop, nursery)
    watch.end(job.label, ended.kind)
    done(job, ended)


def run_job(job: Job, folder: Path, watch: Watch, stop: threading.Event, nursery: Nursery | None = None) -> Exit:
    """Run one job in a guarded child. Its work folder below `folder` is swept by the store if we are killed.

    Raises:
        StoreError: no work folder can be made there.
    """
    with ExitStack() as stack:
        with as_store_error("make a working folder", folder):
            workdir = stack.enter_context(scratch(folder))
        return run_guarded(
            job.entry,
            job.request,
            workdir=workdir,
            limits=job.limits,
            on_progress=lambda event: watch.update(job.label, event),
            stop=stop,
            nursery=nursery,
        )
