"""Reach MLflow beside the children's work: importing it and making a database cost seconds of a core that waits."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.errors import TrackingError
from qpipe.flow.garbage import importing
from qpipe.flow.publish.log import check_reachable, open_tracker, run_params
from qpipe.flow.publish.settled import database_state
from qpipe.flow.publish.waiting import GRACE_S
from qpipe.flow.stopping import heed

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from qpipe.execute.children.watch import Watch
    from qpipe.flow.options import RunOptions
    from qpipe.flow.workplace import Workplace
    from qpipe.tracking import Hold, Tracker

POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """MLflow and the parent run in it; None for an offline run."""

    tracker: Tracker | None = None
    parent: str | None = None
    before: str | None = None
    """State of a local database before it was opened, and …"""
    begun: str | None = None
    """… once the parent run stood in it."""
    hold: Hold | None = None
    """What proves that this process lives, or lived, as long as its run has not ended in MLflow."""

    def end(self) -> None:
        """The run has ended there too."""
        if self.hold is not None:
            self.hold.end()


class Reaching:
    """MLflow and the parent run, asked for when work begins and waited for before anything is timed.

    A server that is away, a database that cannot be written and the like are refused before work, by what needs no
    MLflow. What only MLflow finds out (a deleted experiment, a foreign schema) sets `stop`: the children end at once
    and `wait` raises it.
    """

    def __init__(self, reach: Callable[[threading.Event], Reached], stop: threading.Event) -> None:
        self._reach = reach
        self._stop = stop
        self._unwanted = threading.Event()
        self._found = Reached()
        self.error: BaseException | None = None
        """What MLflow refused, once it has: work was stopped because of it."""
        self._thread = threading.Thread(target=self._work, name="qpipe-mlflow", daemon=True)
        self._thread.start()

    def wait(self) -> Reached:
        """MLflow and the parent run.

        Raises:
            UnreachableError: no answer in time (exit code 2).
            TrackingError: MLflow is lost, or refused.
            Interrupted: the run was stopped meanwhile.
        """
        while self._thread.is_alive() and not self._stop.is_set():
            self._thread.join(POLL_S)
        if self.error is not None:
            raise self.error
        heed(self._stop)
        return self._found

    def give_up(self, *, interrupted: bool) -> None:
        """Leave no run behind that looks alive; why the run is given up is more important than MLflow's troubles.

        Whoever interrupts does not wait for a server that says nothing: the next run of this machine ends what is left.
        """
        self._unwanted.set()
        ending = threading.Thread(target=self._end, args=(interrupted,), name="qpipe-giving-up", daemon=True)
        ending.start()
        ending.join(GRACE_S if interrupted else None)

    def _end(self, interrupted: bool) -> None:
        self._thread.join()
        if self._found.tracker is not None and self._found.parent is not None:
            with suppress(TrackingError):
                self._found.tracker.finish(self._found.parent, "KILLED" if interrupted else "FAILED")
                self._found.end()

    def _work(self) -> None:
        try:
            self._found = self._reach(self._unwanted)
        except BaseException as error:  # noqa: BLE001  (raised again where it is waited for)
            self.error = error
            self._stop.set()


def reach(
    workplace: Workplace, options: RunOptions, run_id: str, watch: Watch, stop: threading.Event, *, held: ExitStack
) -> Reaching:
    """Begin to reach MLflow; a run that was begun before is adopted, and `watch` told what killed ones left.

    `held` lasts as long as the run: what proves that its process lives is held in it.

    Raises:
        UnreachableError: nobody answers, or the database cannot be written (exit code 2).
    """
    from qpipe.tracking import holding, joined_run

    if options.offline:
        return Reaching(lambda _: Reached(), stop)
    check_reachable(workplace, options)
    before = database_state(workplace, options)
    join = options.join or joined_run()  # asked here: MLflow's active run is the thread's

    def work(unwanted: threading.Event) -> Reached:
        with importing():
            tracker = open_tracker(workplace, options)
            if tracker is None or unwanted.is_set():
                return Reached()
            for line in tracker.end_orphans(run_id, store=workplace.store.root, join=join):
                watch.say(line)
            params = run_params(workplace)
            hold = held.enter_context(holding(workplace.store.root))
            parent = tracker.start(run_id, workplace.pipeline.name, params, join=join, hold=hold.tag)
            if not unwanted.is_set():
                tracker.warm_up()
        begun = database_state(workplace, options)
        return Reached(hold=hold, tracker=tracker, parent=parent, before=before, begun=begun)

    return Reaching(work, stop)
