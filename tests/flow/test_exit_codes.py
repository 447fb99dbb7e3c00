"""The one exit code of a run."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations

import pytest

from qpipe.flow.exitcodes import cell_code, run_code, worst
from qpipe.records.result import CellResult
from qpipe.records.verdict import Decision

CELL = CellResult(key="k", model="m", recipe="int8", target="t", status="ok", decision=Decision.PASS)
ORDER = (130, 1, 2, 5, 3, 4, 0)
"""As documented: the worst first."""


@pytest.mark.parametrize("pair", list(combinations(ORDER, 2)))
def test_the_worst_code_wins_whatever_the_order(pair):
    assert worst(pair) == worst(reversed(pair)) == pair[0]


def test_all_orders_of_all_codes_are_one():
    assert {worst(codes) for codes in permutations(ORDER[3:])} == {5}
    assert worst(()) == 0


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        (CELL, 0),
        (replace(CELL, decision=Decision.FAIL), 3),
        (replace(CELL, decision=Decision.INCONCLUSIVE), 4),
        (replace(CELL, decision=None, recipe="none"), 0),
        *((replace(CELL, status=status, decision=None), 5) for status in ("failed", "crashed", "timeout", "memory")),
        (replace(CELL, status="unavailable", decision=Decision.INCONCLUSIVE), 5),
    ],
)
def test_what_a_cell_contributes(cell, code):
    assert cell_code(cell) == code


def test_a_run_that_judged_nothing_is_never_0():
    reference = replace(CELL, recipe="none", decision=None)
    assert run_code((), logged=True) == 4
    assert run_code((reference,), logged=True) == 4
    assert run_code((reference, CELL), logged=True) == 0


def test_what_could_not_be_logged_is_5_even_if_a_gate_failed():
    assert run_code((CELL,), logged=False) == 5
    assert run_code((replace(CELL, decision=Decision.FAIL),), logged=False) == 5
