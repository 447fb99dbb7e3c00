"""Profile all engines of one target together: timed processes one after the other, then processes for memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

from qpipe.execute.children.guard import Exit
from qpipe.execute.children.watch import Silence, Watch
from qpipe.execute.jobs import Contestant, MemoryJob, TimingJob
from qpipe.execute.local import Job, run_job, run_jobs
from qpipe.gates.statistics.latency import percentile_bounds
from qpipe.measure.device import Conditions, course, load_conditions
from qpipe.measure.drift import drifted
from qpipe.measure.host import conditions, measuring
from qpipe.measure.memory import PeakMemory
from qpipe.measure.profile import summarize
from qpipe.measure.samples import Samples, load_samples, merge_samples, select_samples
from qpipe.records.cell import Timing
from qpipe.records.codec import decode, encode
from qpipe.records.data import DataSpec, RoleName
from qpipe.records.engine import Kind
from qpipe.records.evidence import NotMeasured, Profile
from qpipe.records.target import Target
from qpipe.records.tensors import Signature
from qpipe.store.scratch import scratch

TIMING = "qpipe.execute.work.timed:run_timing"
MEMORY = "qpipe.execute.work.timed:run_memory"
TRIES = 3
"""A run that drifts is thrown away at most twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to profile: the float engine and all engines that are compared with it."""

    store: str
    target: Target
    baseline: Contestant
    others: tuple[Contestant, ...]
    data: DataSpec
    signature: Signature
    timing: Timing
    kind: Kind
    role: RoleName = "gate"

    @property
    def everyone(self) -> tuple[Contestant, ...]:
        """All engines of the timed processes, the baseline first."""
        return (self.baseline, *self.others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """The profile of one engine with the raw samples of it and of the float engine."""

    profile: Profile | NotMeasured
    samples: Samples | None = None
    again: bool = False
    """Whether another try may end differently, so that the cell is not finished: a process that crashed, no process
    that told its memory, or no float engine yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Samples of all processes of one try, and what the device said of itself meanwhile."""

    samples: Samples
    seen: tuple[Conditions, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where children run and who watches them."""

    folder: Path
    watch: Watch
    stop: threading.Event


def profile_target(order: Order, place: Place) -> dict[str, Profiled]:
    """Profiles by label. Holds the host's measuring lock; nothing else of qpipe runs on this host meanwhile."""
    with measuring(place.watch.say, stop=place.stop):
        return _profile(order, place)


def _profile(order: Order, place: Place) -> dict[str, Profiled]:
    timed, voided = _timed_without_drift(order, place)
    if isinstance(timed, Exit):
        if len(order.others) > 1 and not place.stop.is_set():  # one of them breaks the process: find out which
            return _one_by_one(order, place)
        reason = f"the timed process ended: {timed.error.message if timed.error else timed.kind}"
        return {one.label: Profiled(profile=NotMeasured(reason=reason), again=True) for one in order.everyone}
    peaks = _memory(order, place)
    profiles = summarize(
        timed.samples,
        baseline=order.baseline.label,
        threads=order.target.threads,
        kind=order.kind,
        peak_rss_bytes=peaks,
        conditions=(*course(timed.seen), *conditions(order.target.isa)),
        voided=voided,
        bounds=percentile_bounds,
    )
    return {
        label: Profiled(
            profile=profile,
            samples=select_samples(timed.samples, dict.fromkeys((order.baseline.label, label))),
            again=order.timing.memory_processes > 0 and not peaks[label],
        )
        for label, profile in profiles.items()
    }


def _one_by_one(order: Order, place: Place) -> dict[str, Profiled]:
    """Each engine beside the float engine, whose own profile is the first one that was measured."""
    found: dict[str, Profiled] = {}
    for one in order.others:
        pair = _profile(replace(order, others=(one,)), place)
        known = found.get(order.baseline.label)
        found |= pair if known is None or known.again else {one.label: pair[one.label]}
    return found


def _timed_without_drift(order: Order, place: Place) -> tuple[Timed | Exit, int]:
    """Samples of all processes, and how often they were thrown away; the last try stands, drifted or not."""
    for voided in range(TRIES):
        timed = _timed(order, place)
        if isinstance(timed, Exit) or not drifted(timed.samples, order.baseline.label):
            break
        if voided + 1 < TRIES:
            place.watch.say(f"{order.target.name}: the ratio to the float engine drifted: measuring again")
    return timed, voided


def _timed(order: Order, place: Place) -> Timed | Exit:
    label = f"profile/{order.target.name}"
    parts: list[Samples] = []
    seen: list[Conditions] = []
    place.watch.begin(label)
    with scratch(place.folder) as folder:
        for number in range(order.timing.processes):
            ended = run_job(_timing_job(order, label, number, folder), place.folder, place.watch, place.stop)
            if ended.kind != "ok" or ended.result is None:
                place.watch.end(label, ended.kind)
                return ended
            parts.append(load_samples(Path(ended.result)))
            seen += load_conditions(Path(ended.result))
    place.watch.end(label, "ok")
    return Timed(samples=merge_samples(parts), seen=tuple(seen))


def _timing_job(order: Order, label: str, number: int, scratch: Path) -> Job:
    request = TimingJob(
        store=order.store,
        target=order.target,
        contestants=order.everyone,
        data=order.data,
        signature=order.signature,
        timing=order.timing,
        number=number,
        role=order.role,
        samples=str(scratch / f"{number}.npz"),
    )
    return Job(label=label, entry=TIMING, request=encode(request), limits=order.target.limits)


def _memory(order: Order, place: Place) -> dict[str, tuple[int, ...]]:
    """Peak resident set per engine, one number per process of its own; processes that failed give none."""
    found: dict[str, list[int]] = {one.label: [] for one in order.everyone}

    def done(job: Job, ended: Exit) -> None:
        if ended.kind == "ok" and ended.result is not None:
            found[job.label.removesuffix(_IN_MEMORY)].append(decode(PeakMemory, ended.result).peak_rss_bytes)

    jobs = [_memory_job(order, one) for one in order.everyone for _ in range(order.timing.memory_processes)]
    run_jobs(jobs, folder=place.folder, workers=2, watch=Silence(), stop=place.stop, done=done)
    return {label: tuple(sizes) for label, sizes in found.items()}


_IN_MEMORY = " (memory)"


def _memory_job(order: Order, one: Contestant) -> Job:
    request = MemoryJob(
        store=order.store,
        target=order.target,
        contestant=one,
        data=order.data,
        signature=order.signature,
        batch=max(order.target.batch_sizes),
        role=order.role,
    )
    return Job(label=one.label + _IN_MEMORY, entry=MEMORY, request=encode(request), limits=order.target.limits)
