from __future__ import annotations

import numpy as np
import pytest

from qpipe.measure.neighbours import ALIKE_DB, find_disagreement
from qpipe.measure.rows import Outputs

ROWS = np.random.default_rng(3).normal(size=(8, 5)).astype(np.float32)


def evaluated(values):
    return Outputs(tensors={"y": values}, rows=len(values), seconds=0.0)


def fed(values, size):
    return tuple({"y": values[begin : begin + size]} for begin in range(0, len(values), size))


def test_the_same_answers_in_all_sizes_are_no_finding():
    nearly = ROWS * np.float32(1 + 1e-5)  # float kernels sum in another order
    assert find_disagreement(evaluated(ROWS), {1: fed(ROWS, 1), 2: fed(nearly, 2), 8: fed(ROWS, 8)}, 8) == {}


def test_a_size_whose_answers_differ_is_named_with_its_distance():
    other = ROWS + np.float32(0.1) * np.abs(ROWS).max() * np.sign(ROWS)
    found = find_disagreement(evaluated(ROWS), {1: fed(other, 1), 8: fed(ROWS, 8)}, 8)
    noise, power = np.sum((other - ROWS) ** 2.0), np.sum(ROWS**2.0)
    assert found == {1: pytest.approx(10 * np.log10(power / noise), abs=1e-4)}
    assert found[1] < ALIKE_DB


def test_rows_that_stand_in_another_order_are_not_compared():
    shuffled = np.concatenate([ROWS[:4], ROWS[:3:-1]])
    assert find_disagreement(evaluated(ROWS), {2: fed(shuffled, 2)}, 4) == {}
    assert find_disagreement(evaluated(ROWS), {2: fed(shuffled, 2)}, 8)


def test_rows_filled_up_in_the_evaluation_are_compared_over_what_both_have():
    longer = np.pad(ROWS, [(0, 0), (0, 3)])
    assert find_disagreement(evaluated(longer), {2: fed(ROWS, 2)}, 8) == {}


def test_classes_as_numbers_are_not_compared():
    classes = np.arange(8)
    assert find_disagreement(evaluated(classes), {2: fed(classes[::-1], 2)}, 8) == {}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_finite_in_one_size_alone_differs_whatever_the_rest_says(bad):
    broken = ROWS.copy()
    broken[2, 1] = bad
    assert find_disagreement(evaluated(ROWS), {1: fed(broken, 1), 8: fed(ROWS, 8)}, 8) == {1: -np.inf}
    assert find_disagreement(evaluated(broken), {1: fed(ROWS, 1)}, 8) == {1: -np.inf}
    assert find_disagreement(evaluated(broken), {1: fed(broken, 1)}, 8) == {}


def test_zeros_that_are_no_zeros_in_another_size_differ():
    zeros = np.zeros_like(ROWS)
    assert find_disagreement(evaluated(zeros), {1: fed(ROWS, 1)}, 8) == {1: 0}
    assert find_disagreement(evaluated(zeros), {1: fed(zeros, 1)}, 8) == {}
