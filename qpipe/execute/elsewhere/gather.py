"""Wait for tasks of a Dask scheduler: progress comes by, labels may vanish, the user may press Ctrl-C."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from qpipe.execute.children.exits import ExitError
from qpipe.execute.children.progress import ProgressEvent

if TYPE_CHECKING:
    from distributed import Client, Future

    from qpipe.execute.children.watch import Watch

TICK_S = 0.1
LOOK_S = 2.0
"""How often it is looked whether every label is still offered."""
ABSENCE_S = 60.0
"""How long a label may be offered by nobody (a worker that restarts) before its tasks are given up."""


class Gathering:
    """Futures on their way home; at the end of the block whatever is still under way is cancelled."""

    def __init__(self, client: Client, watch: Watch, stop: threading.Event) -> None:
        self.topic = f"qpipe-{uuid.uuid4().hex}"
        """Where workers tell their progress."""
        self._client = client
        self._watch = watch
        self._stop = stop
        self._pending: dict[Future[str], str] = {}
        self._gone_since: dict[str, float] = {}
        self._lock = threading.Lock()
        self._state: dict[str, bool] = {}
        """Labels of jobs that have begun: whether they are under way."""

    def __enter__(self) -> Self:
        """Listen for progress."""
        self._client.subscribe_topic(self.topic, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel what is not finished: the workers stop its children."""
        self._client.unsubscribe_topic(self.topic)
        if self._pending and self._client.status == "running":
            self._client.cancel(list(self._pending))

    def finished(self, targets: Mapping[Future[str], str]) -> Iterator[Future[str]]:
        """Futures as they end, well or not; ends early when `stop` is set. `targets` are their labels, or empty."""
        ended: queue.SimpleQueue[Future[str]] = queue.SimpleQueue()
        self._pending = dict(targets)
        for future in targets:
            future.add_done_callback(ended.put)
        look = time.monotonic() + LOOK_S
        while self._pending and not self._stop.is_set():
            try:
                future = ended.get(timeout=TICK_S)
            except queue.Empty:
                if time.monotonic() >= look:
                    look = time.monotonic() + LOOK_S
                    yield from self._give_up()
                continue
            if self._pending.pop(future, None) is not None:
                yield future

    def end(self, label: str, outcome: str) -> None:
        """A job is over."""
        with self._lock:
            self._state[label] = False
        self._watch.end(label, outcome)

    def _give_up(self) -> Iterator[Future[str]]:
        """Futures that nobody will ever run: a label that has been gone for too long, or a scheduler that has left."""
        if self._client.status != "running":
            gone = list(self._pending)
        else:
            absent = self._absent()
            gone = [future for future, target in self._pending.items() if target in absent]
            if gone:
                self._client.cancel(gone)
        for future in gone:
            del self._pending[future]
            yield future

    def _absent(self) -> set[str]:
        """Labels (empty: any worker at all) that nobody has offered for too long."""
        workers = self._client.scheduler_info()["workers"].values()
        offered = {name for facts in workers for name, amount in facts["resources"].items() if amount}
        now = time.monotonic()
        for target in set(self._pending.values()):
            if f"target:{target}" in offered or (not target and workers):
                self._gone_since.pop(target, None)
            elif target not in self._gone_since:
                self._gone_since[target] = now
                what = f"offers target:{target} any more" if target else "is left"
                self._watch.say(waiting(what))
        return {target for target, since in self._gone_since.items() if now - since >= ABSENCE_S}

    def _hear(self, event: tuple[float, list[str | int | None]]) -> None:
        """Called by the client's own thread for each report of a worker."""
        what, label, *rest = event[1]
        if what == "say":
            self._watch.say(str(label))
            return
        with self._lock:
            self._tell(str(what), str(label), rest)

    def _tell(self, what: str, label: str, rest: list[str | int | None]) -> None:
        if what == "begin" and label not in self._state:
            self._state[label] = True
            self._watch.begin(label)
        elif what == "end" and self._state.get(label):
            del self._state[label]
            self._watch.end(label, str(rest[0]))
        elif what == "update" and self._state.get(label):
            step, done, total = rest
            self._watch.update(
                label, ProgressEvent(step=str(step), done=int(done or 0), total=None if total is None else int(total))
            )


def waiting(what: str) -> str:
    """What the user is told of workers that may come back."""
    return f"no Dask worker {what}: waiting {ABSENCE_S:g} s for one"


def lost(future: Future[str]) -> ExitError:
    """Why a task has no result, as far as Dask knows."""
    if future.status != "error":
        message = "the Dask scheduler or the workers of this target have gone"
        return ExitError(type="Lost", message=message, hint="start them, and run again: it goes on", code=5)
    error = future.exception()
    name = type(error).__name__
    if name == "KilledWorker":
        message = "the Dask workers that ran this died, one after the other"
        return ExitError(type=name, message=message, hint="look at the log of the last worker", code=5)
    return ExitError(type=name, message=f"on its worker: {name}: {error}", hint="look at the worker's log", code=5)
