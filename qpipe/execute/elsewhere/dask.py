"""The executor for several machines: Dask distributed carries text, the store carries bytes.

A host offers a target by a resource of its worker: `dask worker tcp://head:8786 --resources "target:orin=1"
--nthreads 1 --memory-limit 0`. Each question is one connection: nothing is left open in between.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qpipe.errors import ConfigError, UnavailableError
from qpipe.execute.children.exits import Exit, ExitError
from qpipe.execute.elsewhere import handshake, remote
from qpipe.execute.elsewhere.gather import Gathering, lost
from qpipe.execute.elsewhere.inputs import Input, input_files, share_inputs
from qpipe.execute.elsewhere.labels import offering
from qpipe.execute.elsewhere.remote import Part, Task
from qpipe.planning.offers import Offer
from qpipe.records.codec import decode, encode
from qpipe.records.evidence import NotMeasured
from qpipe.store import Store

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from distributed import Client, Future

    from qpipe.execute.children.watch import Watch
    from qpipe.execute.local import Job
    from qpipe.execute.work.profiling import Order, Profiled
    from qpipe.records.target import Target

PATIENCE_S = 10.0
"""How long the scheduler may take to answer."""
RETRIES = 1
"""For infrastructure: a stage that fails is an `Exit`, and never comes back as an exception."""
UNREACHED = "it has stopped, or the scheduler's machine does not reach it: look at its log"
UNEQUIPPED = "install qpipe-core[dask] and the target's plugin there, in the versions of this machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaskExecutor:
    """Workers of one scheduler."""

    address: str
    store: Store

    def survey(self, targets: Sequence[Target]) -> Mapping[str, Offer]:
        """Handshake, labels, and what the workers that carry a label say of its target.

        Raises:
            UnavailableError: no scheduler, or a label that no worker carries.
            ConfigError: versions that differ, or a store that a worker does not see.
        """
        handshake.store_identity(self.store)
        names = [target.name for target in targets]
        with connect(self.address) as client:
            offered = offering(client, self.address, names)
            try:
                return self._surveyed(client, targets, offered)
            except UnavailableError:
                left = offering(client, self.address, names)
                if left == offered:
                    raise
                return self._surveyed(client, targets, left)  # without the worker that went while it was asked

    def _surveyed(
        self, client: Client, targets: Sequence[Target], offered: Mapping[str, tuple[str, ...]]
    ) -> dict[str, Offer]:
        workers = tuple(dict.fromkeys(address for found in offered.values() for address in found))
        greetings = _ask(client, handshake.greet, self.store.location, workers)
        decoded = {address: decode(handshake.Greeting, text) for address, text in greetings.items()}
        handshake.check_greetings(decoded, self.store)
        return {target.name: _offer(client, target, offered[target.name]) for target in targets}

    def ready(self, *, work: bool) -> AbstractContextManager[None]:  # noqa: ARG002
        """Nothing: children are started by the workers."""
        return nullcontext()

    def run(
        self, jobs: Sequence[Job], *, watch: Watch, stop: threading.Event, done: Callable[[Job, Exit], None]
    ) -> None:
        """First what may run anywhere (float references), then the cells that need them."""
        shared = self._share(path for job in jobs for path in job.files)
        with connect(self.address) as client, Gathering(client, watch, stop) as gathering:
            for wave in ([job for job in jobs if not job.target], [job for job in jobs if job.target]):
                futures = {self._submit(client, job, shared, gathering.topic): job for job in wave}
                labels = {future: job.target for future, job in futures.items()}
                for future in gathering.finished(labels):
                    job = futures[future]
                    ended = _exit_of(future)
                    gathering.end(job.label, ended.kind)
                    done(job, ended)
                if stop.is_set():
                    return

    def profile(
        self, orders: Sequence[Order], *, watch: Watch, stop: threading.Event
    ) -> tuple[Mapping[str, Profiled], ...]:
        """One task per order, on a worker that offers the target: different machines measure at the same time."""
        found: dict[int, Mapping[str, Profiled]] = {}
        shared = self._share(path for order in orders for path in input_files(order.data))
        with connect(self.address) as client, Gathering(client, watch, stop) as gathering:
            futures = {
                self._submit_profile(client, order, shared, gathering.topic): at for at, order in enumerate(orders)
            }
            for future in gathering.finished({future: orders[at].target.name for future, at in futures.items()}):
                at = futures[future]
                found[at] = self._profiles_of(future, orders[at])
        return tuple(found.get(at, {}) for at in range(len(orders)))

    def _share(self, files: Iterable[Path]) -> dict[Path, Input]:
        """Put all files into the store, each once."""
        paths = tuple(dict.fromkeys(files))
        return dict(zip(paths, share_inputs(paths, self.store), strict=True))

    def _submit(self, client: Client, job: Job, shared: Mapping[Path, Input], topic: str) -> Future[str]:
        inputs = tuple(shared[path] for path in job.files)
        task = Task(store=self.store.location, topic=topic, inputs=inputs, job=replace(job, files=()))
        key = _key(job.key or "reference", self.store.location, job.request)
        return client.submit(
            remote.run_task, encode(task), key=key, retries=RETRIES, resources=_label(job.target), pure=False
        )

    def _submit_profile(self, client: Client, order: Order, shared: Mapping[Path, Input], topic: str) -> Future[str]:
        inputs = tuple(shared[path] for path in input_files(order.data))
        task = Task(store=self.store.location, topic=topic, inputs=inputs, order=encode(order))
        key = _key("profile", topic, task.order)
        return client.submit(
            remote.profile_task, encode(task), key=key, retries=RETRIES, resources=_label(order.target.name), pure=False
        )

    def _profiles_of(self, future: Future[str], order: Order) -> dict[str, Profiled]:
        from qpipe.execute.work.profiling import Profiled
        from qpipe.measure.samples import FILE, load_samples

        if future.status != "finished":
            reason = f"the profile was lost: {lost(future).message}"
            return {one.label: Profiled(profile=NotMeasured(reason=reason), again=True) for one in order.everyone}
        return {
            part.label: Profiled(
                profile=part.profile,
                samples=None if part.samples is None else load_samples(self.store.folder(part.samples) / FILE),
                again=part.again,
            )
            for part in decode(tuple[Part, ...], future.result())
        }


@contextmanager
def connect(address: str) -> Iterator[Client]:
    """A client of the scheduler; TLS and the like come from Dask's own configuration.

    Raises:
        UnavailableError: the package or the scheduler is not there.
        ConfigError: that is no address.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise UnavailableError(
            "the executor dask needs the package distributed", hint="pip install 'qpipe-core[dask]'"
        ) from error
    for name in ("distributed", "distributed.client"):  # what they would say comes back as results and errors
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=PATIENCE_S, set_as_default=False)
    except ValueError as error:
        raise ConfigError(f"{address} is no address of a Dask scheduler: {error}", hint="tcp://HOST:8786") from error
    except OSError as error:
        raise UnavailableError(
            f"the Dask scheduler {address} does not answer: {' '.join(str(error).split())}",
            hint="start one with `dask scheduler`, and give its address with --scheduler tcp://HOST:8786",
        ) from error
    with client:
        yield client


def _offer(client: Client, target: Target, workers: tuple[str, ...]) -> Offer:
    texts = _ask(client, handshake.offer, encode(target), workers)
    return handshake.agreed_offer(target, {who: decode(handshake.Answer, text) for who, text in texts.items()})


def _ask(client: Client, question: Callable[[str], str], text: str, workers: tuple[str, ...]) -> dict[str, str]:
    """One question to several workers, past the queue of their tasks."""
    answers = client.run(question, text, workers=list(workers), on_error="return")
    for address, answer in answers.items():
        if isinstance(answer, BaseException):
            raise UnavailableError(
                f"worker {address} cannot answer: {type(answer).__name__}: {answer}",
                hint=UNREACHED if isinstance(answer, OSError) else UNEQUIPPED,
            )
    return {str(address): str(answer) for address, answer in answers.items()}


def _exit_of(future: Future[str]) -> Exit:
    if future.status == "finished":
        return decode(Exit, future.result())
    return _never_ran(lost(future))


def _never_ran(error: ExitError) -> Exit:
    return Exit(
        kind="crashed" if error.type == "KilledWorker" else "failed",
        code=None,
        signal=None,
        seconds=0.0,
        cpu_seconds=0.0,
        peak_rss_bytes=0,
        result=None,
        error=error,
        log_tail="",
    )


def _label(target: str) -> dict[str, float] | None:
    return {f"target:{target}": 1} if target else None


def _key(name: str, *parts: str) -> str:
    """The cell key with what else names the work: the same demand of two machines is one task."""
    return f"qpipe-{name}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}"
