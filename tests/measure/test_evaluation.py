from __future__ import annotations

import numpy as np
import pytest

from qpipe.errors import EngineError
from qpipe.measure.evaluation import compare, evaluate, finite_rows, row_cosine, sqnr_db, without_sqnr
from qpipe.measure.rows import Outputs
from qpipe.plugins.metric import Metric, Rows, Units
from qpipe.records import codec
from qpipe.records.evidence import Evaluation


def outputs(array: np.ndarray, name: str = "y") -> Outputs:
    return Outputs(tensors={name: array}, rows=len(array), seconds=0.5)


def mean_of_units(rows: Rows) -> Units:
    values = next(iter(rows.outputs.values()))[:, :1].astype(np.float64)
    return Units(values=values, rows=np.arange(len(values)))


METRIC = Metric(
    name="mean", summary="mean of the first column", kind="score", measure=mean_of_units, aggregate=lambda u: u.mean()
)


def judged(found: np.ndarray, reference: np.ndarray | None) -> Evaluation:
    units = mean_of_units(Rows(outputs={"y": found}, columns={}, label=None))
    return evaluate(
        outputs(found),
        None if reference is None else outputs(reference),
        units,
        METRIC,
        kind="measured",
        role="gate",
        data_digest="d",
        outputs_digest="o",
    )


def test_ten_percent_noise_is_twenty_decibels():
    reference = np.random.default_rng(0).normal(size=(50, 4))
    assert sqnr_db(reference, 1.1 * reference) == pytest.approx(20)
    found = judged(1.1 * reference, reference)
    assert found.sqnr_db == pytest.approx(20)
    assert found.cosine == pytest.approx(1)
    assert (found.rows, found.units, found.seconds) == (50, 50, 0.5)
    assert found.value == pytest.approx(1.1 * reference[:, 0].mean())


def test_equal_outputs_have_no_finite_sqnr():
    same = np.ones((3, 2))
    assert judged(same, same).sqnr_db is None
    assert judged(same, same).cosine == pytest.approx(1)


@pytest.mark.parametrize(
    ("reference", "found", "said"),
    [
        ([1, 2], [1, 2], "the same outputs as the float model"),
        ([1, np.nan], [1, np.nan], "the same outputs as the float model"),
        ([1, 2], [1, np.nan], "outputs that are not finite"),
        ([1, np.inf], [1, 2], "outputs of the float model that are not finite"),
        ([0, 0], [1, 2], "all outputs of the float model are 0"),
        ([1, 2], [1, 3], ""),
    ],
)
def test_why_there_is_no_sqnr_is_told(reference, found, said):
    reference, found = np.float32(reference), np.float32(found)
    assert without_sqnr(reference, found) == said
    with np.errstate(invalid="ignore"):
        assert (sqnr_db(reference, found) is None) == bool(said)


def test_the_reference_is_not_compared_with_itself():
    found = judged(np.ones((3, 2)), None)
    assert (found.sqnr_db, found.cosine) == (None, None)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_are_counted_and_still_encode(bad):
    reference = np.ones((4, 2))
    broken = reference.copy()
    broken[2, 0] = bad
    found = judged(broken, reference)
    assert found.nonfinite_rows == 1
    assert (found.value, found.sqnr_db, found.cosine) == (None, None, None)
    assert codec.decode(Evaluation, codec.encode(found)) == found


def test_finite_rows_looks_at_every_output_and_skips_integers():
    tensors = {"a": np.ones((3, 2)), "b": np.array([[1.0], [np.nan], [1.0]]), "c": np.arange(3)}
    assert finite_rows(tensors).tolist() == [True, False, True]
    assert finite_rows({"c": np.arange(3)}).all()


def test_cosine_of_zero_rows():
    ours = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, -2.0]])
    theirs = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert row_cosine(theirs, ours).tolist() == [1, 0, 0, -1]


def test_the_cosine_is_the_mean_over_rows():
    reference, found = np.eye(3), np.array([[1.0, 0, 0], [0, 2, 0], [1, 0, 0]])
    assert judged(found, reference).cosine == pytest.approx(2 / 3)


def test_the_cosine_of_large_rows_is_no_overflow():
    large = np.array([[3e200, 4e200], [1e-200, 0]])
    assert row_cosine(large, large[:, ::-1]).tolist() == pytest.approx([24 / 25, 0])
    assert compare(outputs(np.array([[1e6, 1.0], [1, 1]])), outputs(np.array([[1e6, 2.0], [1, 1]])))[0] > 100


def test_without_units_there_is_no_value():
    found = evaluate(
        outputs(np.ones((3, 2))),
        None,
        Units(values=np.empty((3, 0)), rows=np.arange(3)),
        METRIC,
        kind="measured",
        role="gate",
        data_digest="d",
        outputs_digest="o",
    )
    assert found.value is None


@pytest.mark.parametrize("other", [outputs(np.ones((3, 3))), outputs(np.ones((3, 2)), "z")])
def test_outputs_that_do_not_pair_up_are_an_error(other):
    with pytest.raises(EngineError, match="the engine gives 'y'"):
        compare(other, outputs(np.ones((3, 2))))
