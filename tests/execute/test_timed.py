"""What the children of a profile do, and whoever asks an engine again what it answered."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from child_work import Place

from qpipe.engines import read_engine
from qpipe.errors import DataError, EngineError
from qpipe.execute.jobs import Contestant, MemoryJob
from qpipe.execute.work import timed
from qpipe.execute.work.pairs import load_pair
from qpipe.execute.work.timed import run_memory, run_timing
from qpipe.execute.work.verifying import VerifyJob, run_verification
from qpipe.measure.device import load_conditions
from qpipe.measure.memory import PeakMemory
from qpipe.measure.samples import load_samples
from qpipe.plugins.packages import ABSENT
from qpipe.records.codec import decode, encode
from qpipe.testing.fake import FakeBackend, fake_site
from qpipe.testing.models import small_rows
from qpipe.testing.progress import Silent


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """A float engine and an int8 one of two batch sizes, evaluated; nobody writes into that folder but samples."""
    with pytest.MonkeyPatch.context() as patch:
        place = Place(folder=tmp_path_factory.mktemp("worked"))
        patch.syspath_prepend(str(fake_site()))
        patch.chdir(place.folder)
        cells = place.cells(target={"batch_sizes": [4, 1]})
        yield SimpleNamespace(place=place, cells=cells, outcomes={name: place.work(one) for name, one in cells.items()})


def timing_job(worked, number=0, **changes):
    return replace(worked.place.timing_job(worked.cells, worked.outcomes, number), **changes)


def timed_samples(job):
    run_timing(encode(job), Silent())
    return load_samples(Path(job.samples))


def test_timed_outputs_are_the_evaluated_ones_also_after_other_batch_sizes(place):
    for sizes in ((1,), (4, 1)):
        found = place.timed(place.cells(target={"batch_sizes": list(sizes)}))
        assert found.outputs_match.all(), sizes
        assert found.batches == tuple(sorted(sizes))


def test_an_engine_that_was_not_evaluated_does_not_match(worked, tmp_path):
    from qpipe.execute.work.pairs import write_unmeasured

    write_unmeasured(tmp_path, "no board", "")
    none, int8 = timing_job(worked).contestants
    never = replace(int8, evaluation=worked.place.store.put_folder(tmp_path))
    assert timed_samples(timing_job(worked, contestants=(none, never))).outputs_match.tolist() == [[True, False]]


def test_the_time_to_load_an_engine_is_in_milliseconds_and_not_that_of_the_runtime(worked, monkeypatch):
    now_s, opened, open_engine = [0.0], [], FakeBackend.open

    def slow_at_first(backend, engine, target):
        opened.append(engine)
        now_s[0] += 5.0 if len(opened) == 1 else 0.02
        return open_engine(backend, engine, target)

    monkeypatch.setattr(FakeBackend, "open", slow_at_first)
    monkeypatch.setattr(timed, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))
    assert timed_samples(timing_job(worked)).load_ms.tolist() == [pytest.approx([20, 20])]


def test_each_process_begins_with_another_engine(worked):
    assert [timed_samples(timing_job(worked, number)).engine[0] for number in range(2)] == [0, 1]


def test_cpu_time_of_a_target_with_several_threads_is_that_of_the_process(worked, monkeypatch):
    monkeypatch.setattr(time, "thread_time_ns", lambda: 0)
    job = timing_job(worked)
    assert not timed_samples(job).cpu_ns.any()
    assert timed_samples(replace(job, target=replace(job.target, threads=2))).cpu_ns.any()


def test_what_devices_and_other_programs_say_stands_beside_the_times_in_order(worked, monkeypatch):
    heat = iter(("40", "47"))
    monkeypatch.setattr(timed, "device_conditions", lambda sessions: (("heat", f"{next(heat)} {len(sessions)}"),))
    monkeypatch.setattr(timed, "cross_checks", lambda sessions: (("said of", ", ".join(sessions)),))
    job = timing_job(worked)
    run_timing(encode(job), Silent())
    assert load_conditions(Path(job.samples)) == (
        (("heat", "40 2"),),
        (("heat", "47 2"),),
        (("said of", "none, int8"),),
    )


def test_candidates_of_a_search_are_timed_on_the_rows_that_judged_them(place):
    rows = {"search": {"image": small_rows(64, 9), "label": np.zeros(64, int)}}
    data = {"label": "label"} | {role: {"npz": f"{role}.npz"} for role in ("calibration", "search", "gate")}
    cells = {
        name: replace(cell, role="search")
        for name, cell in place.cells(rows=rows, pipeline={"data": data}).items()
        if name == "none"
    }
    job = place.timing_job(cells, {"none": place.work(cells["none"])})
    assert timed_samples(replace(job, role="search")).outputs_match.all()
    assert not timed_samples(job).outputs_match.any()


def test_memory_is_that_of_the_batch_that_is_asked_for(worked):
    cell, outcome = worked.cells["none"], worked.outcomes["none"]
    job = MemoryJob(
        store=str(worked.place.store.root),
        target=replace(cell.target, options={"batch_one_only": True}),
        contestant=Contestant(label="none", engine=outcome.engine, evaluation=outcome.evaluation),
        data=cell.data,
        signature=cell.model.signature,
        batch=1,
    )
    assert decode(PeakMemory, run_memory(encode(job), Silent())).peak_rss_bytes > 1 << 20
    with pytest.raises(EngineError, match="a batch of 4 rows"):
        run_memory(encode(replace(job, batch=4)), Silent())


def test_an_engine_is_asked_again_on_the_rows_that_judged_it_and_no_others(worked, tmp_path, monkeypatch):
    cell, outcome = worked.cells["int8"], worked.outcomes["int8"]
    evaluation = load_pair(worked.place.store.folder(outcome.evaluation)).engine
    engine = read_engine(worked.place.store.folder(outcome.engine))
    job = VerifyJob(engine=str(engine.path), target=cell.target, data=cell.data, data_digest=evaluation.data_digest)
    assert run_verification(encode(job), Silent()) == evaluation.outputs_digest

    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("qpipe.engines.machine.package_version", lambda _: ABSENT)
        with pytest.raises(EngineError, match="cannot run here"):
            run_verification(encode(job), Silent())

    other = tmp_path / "gate.npz"
    np.savez(other, image=small_rows(64, 8), label=np.zeros(64, int))
    roles = tuple(replace(one, npz=other) if one.role == "gate" else one for one in cell.data.roles)
    changed = replace(job, data=replace(cell.data, roles=roles))  # sealed with what it held
    with pytest.raises(EngineError, match="the gate data has changed since"):
        run_verification(encode(changed), Silent())
    with pytest.raises(DataError, match="was changed after the run was planned"):
        run_timing(encode(timing_job(worked, data=changed.data)), Silent())
