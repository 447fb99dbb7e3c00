"""Where work is done: this machine, or others. An executor is asked for few things and keeps nothing in between."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from qpipe.execute.children.nursery import Nursery
from qpipe.planning.offers import Offer, ask_backend

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from qpipe.execute.children.exits import Exit
    from qpipe.execute.children.watch import Watch
    from qpipe.execute.local import Job
    from qpipe.execute.work.profiling import Order, Profiled
    from qpipe.plugins.registry import Registry
    from qpipe.records.target import Target


class Executor(Protocol):
    """Runs jobs and profiles; every job is one guarded child, wherever it runs."""

    def survey(self, targets: Sequence[Target]) -> Mapping[str, Offer]:
        """What is offered for each target by the machines that would do its work, by name. Before any work.

        Raises:
            UnavailableError: a machine that is needed is not there; the hint says how to start it.
            QpipeError: a backend that nobody has, machines that differ, a store that they do not see.
        """
        ...

    def ready(self, *, work: bool) -> AbstractContextManager[None]:
        """A block in which jobs begin sooner: what children need is loaded beside whatever else is done.

        Without `work` there will be none, and what was begun for them is given up.
        """
        ...

    def run(
        self, jobs: Sequence[Job], *, watch: Watch, stop: threading.Event, done: Callable[[Job, Exit], None]
    ) -> None:
        """Run all jobs; `done` is called as each ends, from any thread. After `stop`, the rest are not started."""
        ...

    def profile(
        self, orders: Sequence[Order], *, watch: Watch, stop: threading.Event
    ) -> tuple[Mapping[str, Profiled], ...]:
        """Profiles by label, one mapping per order; empty ones after `stop`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalExecutor:
    """This machine: a few children at a time, and one measurement."""

    registry: Registry
    folder: Path
    """Where children have their work folders."""
    workers: int
    """Children at a time."""
    nursery: Nursery = field(default_factory=Nursery, repr=False, compare=False)
    """Where they come from while it is open; those that measure are always fresh interpreters."""

    def survey(self, targets: Sequence[Target]) -> Mapping[str, Offer]:
        """What the backends here say."""
        return {target.name: ask_backend(target, self.registry) for target in targets}

    def ready(self, *, work: bool) -> AbstractContextManager[None]:
        """Opens the nursery, or ends the seed that it has."""
        if work:
            return self.nursery.opened()
        self.nursery.end()
        return nullcontext()

    def run(
        self, jobs: Sequence[Job], *, watch: Watch, stop: threading.Event, done: Callable[[Job, Exit], None]
    ) -> None:
        """`workers` at a time, in threads that wait for their children."""
        from qpipe.execute.local import run_jobs

        run_jobs(
            jobs,
            folder=self.folder,
            workers=self.workers,
            watch=watch,
            stop=stop,
            done=done,
            nursery=self.nursery,
        )

    def profile(
        self, orders: Sequence[Order], *, watch: Watch, stop: threading.Event
    ) -> tuple[Mapping[str, Profiled], ...]:
        """One after the other: two measurements on one machine would measure each other."""
        from qpipe.execute.work.profiling import Place, profile_target

        place = Place(folder=self.folder, watch=watch, stop=stop)
        return tuple({} if stop.is_set() else profile_target(order, place) for order in orders)
