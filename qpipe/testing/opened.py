"""What a session gives, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qpipe.errors import EngineError, RefusedError
from qpipe.plugins.backend import Backend, DeviceTimed, Session, Tensors
from qpipe.records.engine import Availability, Unavailable
from qpipe.records.target import Target
from qpipe.records.tensors import TensorSpec
from qpipe.testing.cases import Case, float_outputs, make_case
from qpipe.testing.comparing import EXACT, assert_same, error_of, off_by, run
from qpipe.testing.models import pair_rows, small_rows, write_pair_model
from qpipe.testing.subject import Subject
from qpipe.testing.surroundings import left_as_found

KINDS = ("measured", "emulated", "simulated")


class OpenedContract(Subject):
    """Outputs are the model's, row by row, whatever was run before."""

    @pytest.mark.parametrize("batch", [1, 5])
    def test_outputs_are_those_of_the_signature(self, case: Case, session: Session, batch: int) -> None:
        """Names in order, dtypes, shapes; finite; the inputs are left alone."""
        rows = small_rows(batch)
        given = rows.copy()
        outputs = session.run({"image": rows})
        assert isinstance(outputs, Mapping), f"run gives {type(outputs).__name__}: give a dict, outputs by name"
        assert session.signature == case.model.signature, "a session's signature is that of its engine"
        assert session.kind in KINDS, f"kind is {session.kind!r}: say one of {', '.join(KINDS)}"
        names = [spec.name for spec in case.model.signature.outputs]
        assert list(outputs) == names, f"run gives {list(outputs)}: give {names}, in the signature's order"
        for spec in case.model.signature.outputs:
            _assert_fits(outputs[spec.name], spec, batch)
        assert np.array_equal(rows, given), "a session does not write into its inputs"

    def test_outputs_are_the_models(self, case: Case, session: Session) -> None:
        """The float engine gives the model's numbers, the int8 engine similar ones; rows keep their order."""
        rows = small_rows(16, seed=2)
        expected = float_outputs(case.model.file, case.model.signature, {"image": rows})["logits"]
        found = np.concatenate([run(session, rows[start : start + 4]) for start in range(0, 16, 4)])
        error = off_by(found, expected)
        if case.recipe == "none":
            assert error <= self.float_tolerance, f"the float engine is off by {error:.2g}: its rows, or its float32"
        else:
            cosine = (found * expected).sum() / np.sqrt((found**2).sum() * (expected**2).sum())
            assert cosine >= self.int8_cosine, f"cosine to float is {cosine:.3f}: layout, scales, or a wrong scheme"
            self._assert_rounded(case, rows, found)

    def _assert_rounded(self, case: Case, rows: NDArray[np.float32], found: NDArray[np.float32]) -> None:
        """Integer kernels leave a rounding error behind."""
        if case.built.placement is None or not (integer := case.built.placement.integer):
            return
        graph = float_outputs(case.prepared.graph, case.prepared.signature, {"image": rows})["logits"]
        error = off_by(found, graph)
        told = f"placement tells of {integer} integer kernels, yet outputs are float32's (off by {error:.0e})"
        assert error > EXACT, told

    def test_inputs_and_outputs_go_by_name(
        self, backend: Backend, target: Target, state: Availability, tmp_path: Path
    ) -> None:
        """A float engine with two inputs and two outputs of one shape, which are given in another order."""
        self.skip_unless_built("none", state)
        if isinstance(state.run, Unavailable):
            pytest.skip(state.run.reason)
        try:
            case = make_case(backend, target, write_pair_model(tmp_path), "none", lambda: iter([pair_rows(8)]))
        except RefusedError as refused:
            pytest.skip(f"build refuses two inputs and outputs: {refused}")
        inputs = pair_rows(3)
        expected = float_outputs(case.model.file, case.model.signature, inputs)
        session = backend.open(case.engine, target)
        found = session.run(inputs)
        session.close()
        assert list(found) == list(expected), f"run gives {list(found)}: give {list(expected)}, the signature's order"
        for name, values in expected.items():
            error = off_by(np.asarray(found[name]), values)
            told = f"output {name!r} is off by {error:.2g}: match inputs and outputs by name, never by their place"
            assert error <= self.float_tolerance, told

    def test_a_row_does_not_depend_on_its_batch(self, session: Session) -> None:
        """Batch 1, then 5, then 2 give the same rows, up to float rounding."""
        rows = small_rows(5)
        single = np.concatenate([run(session, rows[number : number + 1]) for number in range(5)])
        told = "five rows at once give other numbers than one by one: their order, or what a run leaves behind"
        np.testing.assert_allclose(run(session, rows), single, rtol=1e-3, atol=1e-3, err_msg=told)
        told = "two rows after five give other numbers than one by one: buffers of the larger batch are still in use"
        np.testing.assert_allclose(run(session, rows[3:]), single[3:], rtol=1e-3, atol=1e-3, err_msg=told)

    def test_outputs_stay_and_repeat(self, session: Session) -> None:
        """A later run does not write into the outputs of an earlier one; the same rows give the same outputs."""
        first = run(session, small_rows(2))
        kept = first.copy()
        for seed in range(2, 8):
            run(session, small_rows(2, seed))
        np.testing.assert_array_equal(first, kept, err_msg="a later run writes into outputs that were given: copy them")
        told = "the same rows give other numbers after other rows: a run leaves something behind"
        np.testing.assert_allclose(run(session, small_rows(2)), kept, rtol=1e-5, atol=1e-6, err_msg=told)

    def test_inputs_are_the_callers(self, session: Session) -> None:
        """The caller fills its array again, gives one that may not be written, or rows that lie apart in memory."""
        rows, other = small_rows(2), small_rows(2, seed=9)
        expected = run(session, other)
        first = run(session, rows)
        kept = first.copy()
        rows[...] = other
        np.testing.assert_array_equal(first, kept, err_msg="outputs change with the caller's inputs: copy them")
        told = "an array that was given before, with other rows in it, gives the old answer: the session keeps it"
        assert_same(session, rows, expected, told)
        rows.setflags(write=False)
        assert_same(session, rows, expected, "an array that may not be written is refused or misread: copy it")
        apart = np.asfortranarray(np.repeat(other, 2, axis=0))[::2]
        assert_same(session, apart, expected, "rows that lie apart in memory are refused or misread: ascontiguousarray")

    @pytest.mark.parametrize("wrong", ["missing", "smaller"])
    def test_wrong_inputs_are_an_exception(self, session: Session, wrong: str) -> None:
        """Not a crash, and not an answer; the session goes on afterwards."""
        given: dict[str, Tensors] = {
            "missing": {"no_such_input": small_rows(1)},
            "smaller": {"image": small_rows(1)[..., :4]},
        }
        rows = small_rows(1)
        before = run(session, rows)
        said = error_of(lambda: session.run(given[wrong]))
        told = f"run answers though input 'image' is {wrong}: hold inputs against the signature (checked_inputs)"
        assert said is not None, told
        assert said.strip(), f"the error for an input that is {wrong} has no message: name the input"
        assert_same(session, rows, before, "after an error the session is broken: check inputs before the runtime does")

    def test_run_after_close_raises(self, session: Session) -> None:
        """And closing twice is fine."""
        run(session, small_rows(1))
        session.close()
        session.close()
        said = error_of(lambda: run(session, small_rows(1)), EngineError, "run after close")
        assert said is not None, "run answers after close: let it raise EngineError"

    def test_another_thread_may_run_it(self, session: Session) -> None:
        """A served engine is opened in one thread and run in many, one at a time."""
        rows = small_rows(2)
        expected = run(session, rows)
        with ThreadPoolExecutor(1) as pool:
            told = "a session runs in the thread alone that opened it: a context or a handle belongs to that thread"
            pool.submit(assert_same, session, rows, expected, told).result()

    def test_a_session_touches_nothing_else(
        self, case: Case, session: Session, backend: Backend, target: Target, environment: Mapping[str, str]
    ) -> None:
        """Open, run and close leave the process, its folders and its threads as they were."""
        run(session, small_rows(1))  # what the runtime imports at its first run is not told
        with left_as_found("a session (open, run, close)", environment):
            other = backend.open(case.engine, target)
            run(other, small_rows(2))
            other.close()

    def test_a_device_has_a_clock(self, session: Session) -> None:
        """Times of a run that a device gives are above zero."""
        if not isinstance(session, DeviceTimed):
            pytest.skip("it is timed from here")
        run(session, small_rows(1))
        wall, cpu = session.device_ns
        assert wall > 0, f"device_ns gives {wall} ns of wall time for a run: measure around the runtime's call, in ns"
        assert cpu >= 0, f"device_ns gives {cpu} ns of CPU time: 0 where the device cannot tell"

    def test_two_sessions_at_once(self, case: Case, session: Session, backend: Backend, target: Target) -> None:
        """Timing opens the float engine and the quantized one side by side."""
        rows = small_rows(3)
        alone = run(session, rows)
        other = backend.open(case.engine, target)
        np.testing.assert_allclose(run(other, rows), alone, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(run(session, rows), alone, rtol=1e-5, atol=1e-6)
        other.close()
        np.testing.assert_allclose(run(session, rows), alone, rtol=1e-5, atol=1e-6)


def _assert_fits(values: object, spec: TensorSpec, batch: int) -> None:
    assert isinstance(values, np.ndarray), f"output {spec.name!r} is a {type(values).__name__}: give a numpy array"
    assert values.dtype == np.dtype(spec.dtype), (
        f"output {spec.name!r} is {values.dtype}: convert it to {spec.dtype}, the dtype of the user's model"
    )
    shape = [batch, *spec.shape[1:]]
    fits = spec.fits(values.shape) and len(values) == batch
    assert fits, f"output {spec.name!r} has the shape {list(values.shape)}: give {shape}, also for a batch of one"
    assert np.isfinite(values).all(), f"output {spec.name!r} has NaN or infinity where the model has none"
