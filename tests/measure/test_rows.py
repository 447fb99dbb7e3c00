from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from qpipe.errors import EngineError
from qpipe.measure.rows import Outputs, fixed_batch, judged_first, run_all, run_rows
from qpipe.records.tensors import Signature, TensorSpec

OPEN = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("N", "L")),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("N", "L")),),
)
FIXED = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=(4, 2)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=(4, 2)),),
)


class Doubling:
    """A session in numpy: y = factor · x; records the sizes of its batches."""

    kind = "measured"

    def __init__(self, signature: Signature = OPEN, factor: float = 2, name: str = "y") -> None:
        self.signature = signature
        self.factor = factor
        self.name = name
        self.sizes: list[int] = []

    def run(self, inputs):
        self.sizes.append(len(inputs["x"]))
        return {self.name: self.factor * inputs["x"]}

    def close(self) -> None: ...


class Counting:
    """Progress that counts."""

    def __init__(self) -> None:
        self.done = 0

    def step(self, name: str, *, total: int | None = None) -> None: ...

    def advance(self, amount: int = 1) -> None:
        self.done += amount


def batches(*sizes: int, width: int = 2) -> Iterator[dict[str, np.ndarray]]:
    rows = np.arange(sum(sizes) * width, dtype=np.float32).reshape(-1, width)
    start = 0
    for size in sizes:
        yield {"x": rows[start : start + size]}
        start += size


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "object"])
def test_another_dtype_than_the_signatures_is_refused(dtype):
    class Board(Doubling):
        def run(self, inputs):
            return {name: tensor.astype(dtype) for name, tensor in super().run(inputs).items()}

    with pytest.raises(
        EngineError, match=rf"session 'board' gives 'y' as {dtype} where the model has y: float32\[N, L\]"
    ) as caught:
        run_all({"board": Board()}, batches(2))
    assert "float32" in caught.value.hint


def test_strings_come_as_objects_or_as_text():
    words = Signature(inputs=OPEN.inputs, outputs=(TensorSpec(name="y", dtype="str", shape=("N", "L")),))
    for dtype in ("str", "object"):

        class Speaking(Doubling):
            def run(self, inputs, dtype=dtype):
                return {"y": inputs["x"].astype("str").astype(dtype)}

        assert run_rows(Speaking(words), batches(2)).rows == 2


def test_rows_come_back_in_order_and_are_counted():
    progress = Counting()
    found = run_rows(Doubling(), batches(3, 3, 1), progress)
    assert (found.rows, progress.done) == (7, 3)
    np.testing.assert_array_equal(found.tensors["y"], 2 * np.arange(14, dtype=np.float32).reshape(7, 2))
    assert found.seconds >= 0


def test_seconds_are_those_in_the_session_over_all_batches(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("qpipe.measure.rows.time", SimpleNamespace(perf_counter=lambda: now[0]))

    class Slow(Doubling):
        def run(self, inputs):
            now[0] += len(inputs["x"])
            return super().run(inputs)

    def read():
        for batch in batches(2, 3):
            now[0] += 100
            yield batch

    assert run_rows(Slow(), read()).seconds == 5


def test_one_pass_feeds_all_sessions():
    read = []

    def once() -> Iterator[dict[str, np.ndarray]]:
        for batch in batches(2, 2):
            read.append(len(batch["x"]))
            yield batch

    found = run_all({"a": Doubling(), "b": Doubling(factor=3)}, once())
    assert read == [2, 2]
    np.testing.assert_array_equal(found["b"].tensors["y"] * 2, found["a"].tensors["y"] * 3)


def test_a_fixed_batch_is_filled_up_and_cut():
    session = Doubling(FIXED)
    found = run_rows(session, batches(6, 3))
    assert fixed_batch(FIXED) == 4
    assert set(session.sizes) == {4}
    np.testing.assert_array_equal(found.tensors["y"], 2 * np.arange(18, dtype=np.float32).reshape(9, 2))


def test_a_free_batch_is_taken_as_it_comes():
    session = Doubling()
    run_rows(session, batches(5, 2))
    assert (fixed_batch(OPEN), session.sizes) == (None, [5, 2])


def test_trimmed_batches_are_filled_with_zeros():
    found = run_rows(Doubling(), [*batches(1, width=2), *batches(1, width=3)])
    np.testing.assert_array_equal(found.tensors["y"], [[0, 2, 0], [0, 2, 4]])


def giving(*shape: int | str) -> Signature:
    """A signature whose output has another shape than what `Doubling` gives."""
    return Signature(inputs=OPEN.inputs, outputs=(TensorSpec(name="y", dtype="float32", shape=shape),))


@pytest.mark.parametrize(
    ("session", "words"),
    [
        (Doubling(name="z"), "gives z, not 'y'"),
        (Doubling(giving("N", 5)), r"as \[2, 2\] for 2 rows"),
        (Doubling(giving("N")), r"as \[2, 2\] for 2 rows"),
    ],
)
def test_a_session_that_lies_about_its_outputs_is_named(session, words):
    with pytest.raises(EngineError, match=words):
        run_all({"int8": session}, batches(2))


def test_a_session_that_loses_rows_is_refused():
    class Losing(Doubling):
        def run(self, inputs):
            return {"y": inputs["x"][:-1]}

    with pytest.raises(EngineError, match="for 3 rows"):
        run_rows(Losing(), batches(3))


def test_no_rows_is_an_error():
    with pytest.raises(EngineError, match="no rows"):
        run_rows(Doubling(), [])


def test_the_judged_output_stands_in_front():
    found = Outputs(tensors={"a": np.zeros(2), "b": np.ones(2)}, rows=2, seconds=0.0)
    assert judged_first(found, None) is found
    assert list(judged_first(found, "b").tensors) == ["b", "a"]
