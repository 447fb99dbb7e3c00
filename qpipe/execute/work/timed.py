"""The two children of a profile: one that times all engines of a target, one that sees how much memory one needs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.data import open_role
from qpipe.engines import read_engine
from qpipe.execute.jobs import MemoryJob, TimingJob
from qpipe.execute.work.pairs import load_pair
from qpipe.execute.work.passes import real_batches
from qpipe.measure.device import cross_checks, device_conditions, save_conditions
from qpipe.measure.feeds import make_feeds
from qpipe.measure.memory import peak_memory
from qpipe.measure.samples import save_samples
from qpipe.measure.timing import time_sessions
from qpipe.plugins.loader import load_plugins
from qpipe.records.codec import decode, encode
from qpipe.records.evidence import Evaluation
from qpipe.store import Store

if TYPE_CHECKING:
    from qpipe.measure.feeds import Feeds
    from qpipe.plugins.backend import Backend, Progress, Session


def run_timing(request: str, progress: Progress) -> str:
    """Entry of a child: a `TimingJob` as JSON → the path of its samples, `job.samples`, with conditions beside them."""
    job = decode(TimingJob, request)
    store = Store(job.store)
    backend = load_plugins().backend(job.target.backend)
    feeds = _feeds(job, job.target.batch_sizes)
    progress.step(f"time, process {job.number + 1} of {job.timing.processes}")
    engines = {one.label: read_engine(store.folder(one.engine)) for one in job.contestants}
    backend.open(engines[job.contestants[0].label], job.target).close()  # whoever is first loads the runtime too
    sessions: dict[str, Session] = {}
    load_ms: dict[str, float] = {}
    for label, engine in engines.items():
        begin = time.perf_counter()
        sessions[label] = backend.open(engine, job.target)
        load_ms[label] = (time.perf_counter() - begin) * 1e3
    before = device_conditions(sessions.values())
    samples = time_sessions(
        sessions,
        feeds,
        job.timing,
        threads=job.target.threads,
        seed=job.number,
        expected={one.label: _expected(store, one.evaluation) for one in job.contestants},
        load_ms=load_ms,
    )
    seen = (before, device_conditions(sessions.values()))
    checks = cross_checks(sessions) if job.number == 0 else ()
    for session in sessions.values():
        session.close()
    save_samples(Path(job.samples), samples)
    save_conditions(Path(job.samples), (*seen, checks))
    return job.samples


def run_memory(request: str, progress: Progress) -> str:
    """Entry of a child: a `MemoryJob` as JSON → a `PeakMemory` as JSON."""
    job = decode(MemoryJob, request)
    backend: Backend = load_plugins().backend(job.target.backend)
    engine = read_engine(Store(job.store).folder(job.contestant.engine))
    feeds = _feeds(job, (job.batch,))
    progress.step("memory")
    return encode(peak_memory(lambda: backend.open(engine, job.target), feeds))


def _feeds(job: TimingJob | MemoryJob, sizes: tuple[int, ...]) -> Feeds:
    return make_feeds(real_batches(open_role(job.data, job.role, job.signature)), sizes, job.signature)


def _expected(store: Store, evaluation: str) -> str:
    found = load_pair(store.folder(evaluation)).engine
    return found.outputs_digest if isinstance(found, Evaluation) else ""
