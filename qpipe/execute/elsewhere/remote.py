"""What a Dask worker is asked: importable functions from text to text. Bytes stay in the store that all see."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from qpipe.execute.elsewhere.inputs import Input, localize
from qpipe.execute.local import Job, run_job
from qpipe.records.codec import decode, encode
from qpipe.records.evidence import NotMeasured, Profile
from qpipe.store import Store

if TYPE_CHECKING:
    from qpipe.execute.children.progress import ProgressEvent
    from qpipe.execute.work.profiling import Profiled

POLL_S = 0.2
"""How often a worker looks whether its task is still wanted, and how often it reports progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One job, or one profile (`order` is an `Order` as JSON)."""

    store: str
    topic: str
    """Where progress is told."""
    inputs: tuple[Input, ...]
    job: Job | None = None
    order: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The profile of one engine as it travels."""

    label: str
    profile: Profile | NotMeasured
    samples: str | None
    """Object with the raw samples."""
    again: bool


class Unwanted(Exception):
    """The task was cancelled while it ran: whoever asks for it again must not get half of it."""


def run_task(text: str) -> str:
    """A `Task` with a job as JSON → its `Exit` as JSON. The job runs in a guarded child, as everywhere."""
    task = decode(Task, text)
    if task.job is None:
        raise ValueError("a task without a job")
    store = Store(task.store)
    job = replace(task.job, request=localize(task.job.request, task.inputs, store))
    with _cancellation() as stop:
        reporter = Reporter(task.topic)
        reporter.begin(job.label)
        ended = run_job(job, store.root / "tmp", reporter, stop)
        if ended.kind == "stopped":
            raise Unwanted(job.label)
    return encode(ended)


def profile_task(text: str) -> str:
    """A `Task` with an order as JSON → its `Part`s as JSON. Holds this host's measuring lock."""
    from qpipe.execute.work.profiling import Order, Place, profile_target

    task = decode(Task, text)
    store = Store(task.store)
    order = decode(Order, localize(task.order, task.inputs, store))
    with _cancellation() as stop:
        place = Place(folder=store.root / "tmp", watch=Reporter(task.topic), stop=stop)
        found = profile_target(order, place)
        if stop.is_set():
            raise Unwanted(order.target.name)
    return encode(tuple(_part(label, one, store) for label, one in found.items()))


def _part(label: str, found: Profiled, store: Store) -> Part:
    from qpipe.measure.samples import FILE, save_samples

    digest = None
    if found.samples is not None:
        with TemporaryDirectory() as folder:
            save_samples(Path(folder) / FILE, found.samples)
            digest = store.put_folder(Path(folder))
    return Part(label=label, profile=found.profile, samples=digest, again=found.again)


class Reporter:
    """A `Watch` that tells the ordering machine through the scheduler, not too often."""

    def __init__(self, topic: str) -> None:
        from distributed import get_worker

        self._topic = topic
        self._worker = get_worker()
        self._next_s = 0.0

    def begin(self, label: str) -> None:
        """A job starts."""
        self._tell("begin", label)

    def update(self, label: str, event: ProgressEvent) -> None:
        """How far a job's current step is."""
        import time

        now = time.monotonic()
        if now >= self._next_s:
            self._next_s = now + POLL_S
            self._tell("update", label, event.step, event.done, event.total)

    def end(self, label: str, outcome: str) -> None:
        """A part of a profile is over."""
        self._tell("end", label, outcome)

    def say(self, line: str) -> None:
        """A line for the user."""
        self._tell("say", line)

    def _tell(self, *words: str | int | None) -> None:
        self._worker.log_event(self._topic, list(words))


@contextmanager
def _cancellation() -> Iterator[threading.Event]:
    """An event that is set once nobody wants the running task: cancelled, its client has died, or the scheduler has.

    Dask cannot stop a thread; the guarded child can be stopped, and this tells it.
    """
    from distributed import Status, get_worker

    worker = get_worker()
    ending = (Status.closing, Status.closed, Status.failed)
    key = worker.get_current_task()
    stop, over = threading.Event(), threading.Event()

    def look() -> None:
        while not over.wait(POLL_S):
            task = worker.state.tasks.get(key)
            if task is None or task.state != "executing" or worker.status in ending:
                stop.set()
                return

    watcher = threading.Thread(target=look, name="qpipe-cancellation", daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        over.set()
        watcher.join()
