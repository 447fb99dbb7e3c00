from __future__ import annotations

import gc
import itertools
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qpipe.errors import EngineError, ModelError
from qpipe.measure.clock import check_device_ns, check_ticks
from qpipe.measure.feeds import digest_outputs, make_feeds
from qpipe.measure.profile import summarize
from qpipe.measure.reference import open_reference
from qpipe.measure.samples import merge_samples
from qpipe.measure.timing import time_sessions
from qpipe.records.cell import Timing
from qpipe.records.tensors import Signature, TensorSpec

QUICK = Timing(rounds=40, min_seconds=0.0, warmup=3)
LOADS = {"one": 1.0, "two": 2.0, "a": 1.0, "b": 1.0, "c": 1.0}


def multiply(folder: Path, times: int, batch: int | str = "N") -> Path:
    """A chain of `times` square MatMuls: its time is proportional to `times`."""
    weight = (np.random.default_rng(0).normal(size=(192, 192)) / 14).astype(np.float32)
    names = ["x", *(f"h{number}" for number in range(times - 1)), "y"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[at], "w"], [names[at + 1]], name=f"mm{at}") for at in range(times)],
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 192])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 192])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = folder / f"chain{times}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def rows(count: int = 512) -> list[dict[str, np.ndarray]]:
    return [{"x": np.random.default_rng(5).normal(size=(count, 192)).astype(np.float32)}]


class Scripted:
    """A session that notes its calls and answers from a script."""

    kind = "measured"
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 192)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("N", 192)),),
    )

    def __init__(self, name: str, calls: list[str], drift_after: int | None = None) -> None:
        self.name = name
        self.calls = calls
        self.drift_after = drift_after
        self.collecting: set[bool] = set()

    def run(self, inputs):
        self.calls.append(self.name)
        self.collecting.add(gc.isenabled())
        late = self.drift_after is not None and self.calls.count(self.name) > self.drift_after
        return {"y": inputs["x"] + (1 if late else 0)}

    def close(self) -> None: ...


@pytest.mark.slow
def test_twice_the_work_takes_twice_the_time(tmp_path):
    one, two = open_reference(multiply(tmp_path, 6)), open_reference(multiply(tmp_path, 12))
    feeds = make_feeds(rows(), (128,), one.signature)
    sessions = {"one": one, "two": two}
    parts = [time_sessions(sessions, feeds, QUICK, seed=seed, load_ms=LOADS, expected={}) for seed in range(3)]
    (batch,) = summarize(merge_samples(parts), baseline="one", threads=1)["two"].batches
    # CPU time, and wide: the machine may be busy with other work.
    assert 1.6 < batch.cpu_ratio.median < 2.5
    assert batch.cpu_ratio.low < batch.cpu_ratio.median < batch.cpu_ratio.high


def test_rounds_blocks_and_sizes_are_what_the_protocol_says(tmp_path):
    one, two = open_reference(multiply(tmp_path, 1)), open_reference(multiply(tmp_path, 2))
    feeds = make_feeds(rows(), (1, 8), one.signature)
    found = time_sessions({"two": two, "one": one}, feeds, QUICK, load_ms=LOADS, expected={})
    assert found.batches == (1, 8)
    for size in found.batches:
        assert found.matrix_ms("one", size).shape == (1, 40)
    assert np.bincount(found.block).tolist() == [40, 40, 40, 40]
    assert found.load_ms.tolist() == [[2.0, 1.0]]
    assert (found.wall_ns > 0).all()


def test_small_models_get_more_rounds():
    session = Scripted("a", [])
    feeds = make_feeds(rows(64), (1,), session.signature)
    timing = Timing(rounds=4, min_seconds=0.05, max_rounds=200, warmup=2)
    found = time_sessions({"a": session}, feeds, timing, load_ms=LOADS, expected={})
    assert found.matrix_ms("a", 1).size == 200


def test_the_order_rotates_and_turns_back():
    calls: list[str] = []
    sessions = {name: Scripted(name, calls) for name in "abc"}
    feeds = make_feeds(rows(64), (1,), sessions["a"].signature)
    time_sessions(sessions, feeds, Timing(rounds=6, blocks=1, min_seconds=0.0, warmup=1), load_ms=LOADS, expected={})
    timed = "".join(calls[3:])
    assert timed == "abcbcacabcbaacbbac"


def test_the_collector_rests_while_timing_and_wakes_after():
    session = Scripted("a", [])
    feeds = make_feeds(rows(64), (1,), session.signature)
    time_sessions({"a": session}, feeds, Timing(rounds=4, min_seconds=0.0, warmup=1), load_ms=LOADS, expected={})
    assert False in session.collecting
    assert gc.isenabled()


def test_timed_outputs_are_those_that_were_evaluated(tmp_path):
    path = multiply(tmp_path, 2)
    session = open_reference(path)
    feeds = make_feeds(rows(), (1, 8), session.signature)
    evaluated = digest_outputs(open_reference(path), feeds)
    timed = {"one": session, "two": session}
    found = time_sessions(timed, feeds, QUICK, load_ms=LOADS, expected={"one": evaluated, "two": "0" * 64})
    assert found.outputs_match.tolist() == [[True, False]]


def test_a_session_that_changes_its_answers_is_found_out():
    honest, sly = Scripted("a", []), Scripted("b", [], drift_after=20)
    feeds = make_feeds(rows(64), (1,), honest.signature)
    digest = digest_outputs(honest, feeds)
    expected = {"a": digest, "b": digest}
    found = time_sessions({"a": honest, "b": sly}, feeds, QUICK, load_ms=LOADS, expected=expected)
    assert found.outputs_match.tolist() == [[True, False]]


def test_what_nobody_evaluated_does_not_match():
    session = Scripted("a", [])
    feeds = make_feeds(rows(64), (1,), session.signature)
    found = time_sessions({"a": session}, feeds, QUICK, load_ms=LOADS, expected={})
    assert not found.outputs_match.any()


def test_nothing_to_time_is_an_error():
    with pytest.raises(EngineError, match="nothing to time"):
        time_sessions({}, {}, QUICK, load_ms={}, expected={})


def test_feeds_are_different_rows_and_only_those_needed_are_read():
    def endless():
        while True:
            yield rows(16)[0]

    feeds = make_feeds(endless(), (1, 4), Scripted.signature)
    assert {size: len(inputs) for size, inputs in feeds.items()} == {1: 4, 4: 4}
    firsts = [inputs["x"][0, 0] for inputs in feeds[4]]
    assert len(set(firsts)) == 4


def test_rows_of_several_batches_are_fed_and_no_more_are_read_than_needed():
    read = []

    def batches():
        for start in range(0, 300, 3):
            read.append(start)
            yield {"x": np.repeat(np.arange(start, start + 3, dtype=np.float32)[:, None], 192, axis=1)}

    feeds = make_feeds(batches(), (1, 4), Scripted.signature)
    assert [int(row) for inputs in feeds[4] for row in inputs["x"][:, 0]] == list(range(16))
    assert [int(inputs["x"][0, 0]) for inputs in feeds[1]] == [0, 1, 2, 3]
    assert len(read) == 6


def test_few_rows_are_repeated():
    feeds = make_feeds(rows(3), (8,), Scripted.signature)
    np.testing.assert_array_equal(feeds[8][0]["x"][0], feeds[8][0]["x"][3])


def test_a_fixed_batch_size_is_the_only_one(tmp_path):
    session = open_reference(multiply(tmp_path, 1, batch=4))
    feeds = make_feeds(rows(64), (1, 8), session.signature)
    assert list(feeds) == [4]
    assert session.run(feeds[4][0])["y"].shape == (4, 192)


def test_no_rows_to_time_with():
    with pytest.raises(EngineError, match="no rows"):
        make_feeds([], (1,), Scripted.signature)


def test_a_model_that_cannot_be_loaded_is_named(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not an onnx file")
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        open_reference(path)


class Waiting(Scripted):
    """Waits 4 ms, and computes nothing meanwhile."""

    def run(self, inputs):
        time.sleep(0.004)
        return super().run(inputs)


def test_waiting_is_wall_time_alone():
    session = Waiting("a", [])
    feeds = make_feeds(rows(64), (1,), session.signature)
    timing = Timing(rounds=4, min_seconds=0.0, warmup=1)
    found = time_sessions({"a": session}, feeds, timing, load_ms=LOADS, expected={})
    assert found.wall_ns.min() > 4e6
    assert 0 < np.median(found.cpu_ns) < 2e6


class Ticking(Scripted):
    """A device whose clock counts milliseconds: 10 or 11 for a row, 1 s for more."""

    device_ns = (0, 0)

    def run(self, inputs):
        found = super().run(inputs)
        wall_ms = 10 + len(self.calls) % 2 if len(inputs["x"]) == 1 else 1000 + len(self.calls) % 2
        self.device_ns = (wall_ms * 10**6, 0)
        return found


@pytest.mark.parametrize(("sizes", "refused"), [((8,), False), ((1,), True), ((1, 8), True), ((8, 1), True)])
def test_a_clock_is_too_coarse_for_the_runs_of_one_batch_size(sizes, refused):
    session = Ticking("a", [])
    feeds = make_feeds(rows(64), sizes, session.signature)
    timing = Timing(rounds=8, min_seconds=0.0, warmup=1)
    with pytest.raises(EngineError, match="steps of 1 ms") if refused else nullcontext():
        time_sessions({"a": session}, feeds, timing, load_ms=LOADS, expected={})


class Remote(Scripted):
    """A device that notes each time its clock is asked."""

    asked = 0

    @property
    def device_ns(self) -> tuple[int, int]:
        self.asked += 1
        return 10**6 + self.asked, 0


def test_a_session_is_not_asked_at_each_run_whether_it_has_a_clock():
    session = Remote("a", [])
    feeds = make_feeds(rows(64), (1,), session.signature)
    found = time_sessions({"a": session}, feeds, QUICK, load_ms=LOADS, expected={})
    assert session.asked in {len(found.wall_ns), len(found.wall_ns) + 1}  # `isinstance` asks until Python 3.12


@pytest.mark.parametrize("took", [(0, 5), (-3, 0), (float("nan"), 1), (1, float("inf")), (5, -1)])
def test_a_time_that_no_run_takes_is_refused(took):
    with pytest.raises(EngineError, match="the device's clock gives"):
        check_device_ns(took)
    assert check_device_ns((1, 0)) == (1, 0)


def test_one_long_run_makes_no_fine_clock_coarse():
    check_ticks([[10_000_000, 10_000_100, 10_000_300, 30_000_000]])


@pytest.mark.parametrize(
    ("protocol", "rounds"),
    [
        ({"rounds": 4, "min_seconds": 40 / 128}, 20),  # shared by two sizes, a warm round takes 1/128 s
        ({"rounds": 40, "min_seconds": 40 / 128}, 40),
        ({"rounds": 4, "min_seconds": 40 / 128, "max_rounds": 12}, 12),
        ({"rounds": 8, "min_seconds": 40 / 128, "max_rounds": 4}, 8),  # it caps what seconds ask for alone
        ({"rounds": 5, "min_seconds": 0.0}, 8),  # whole blocks
    ],
)
def test_how_many_rounds_the_protocol_asks_for(protocol, rounds, monkeypatch):
    ticks = itertools.count()
    clock = SimpleNamespace(
        perf_counter=lambda: next(ticks) / 128, perf_counter_ns=time.perf_counter_ns, thread_time_ns=time.thread_time_ns
    )
    monkeypatch.setattr("qpipe.measure.timing.time", clock)
    session = Scripted("a", [])
    feeds = make_feeds([{"x": np.zeros((8, 192), np.float32)}], (1, 2), session.signature)
    found = time_sessions({"a": session}, feeds, Timing(warmup=3, **protocol), load_ms=LOADS, expected={})
    assert [found.times_ms("a", size, 0).size for size in (1, 2)] == [rounds, rounds]
    assert len(session.calls) == 2 * (3 + rounds)
