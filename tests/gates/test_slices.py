"""`slices`: all must pass, Holm decides about failing, small slices are open, the screen is advice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qpipe.records.verdict import Decision

PASS, FAIL, OPEN = Decision.PASS, Decision.FAIL, Decision.INCONCLUSIVE


def sliced(made, losses: dict[str, int], rows: dict[str, int], **changes):
    """Slices with so many rows each, of which so many are lost."""
    names = np.repeat(list(rows), list(rows.values()))
    engine = np.concatenate([np.arange(count) >= losses.get(name, 0) for name, count in rows.items()])
    return made.outcomes(engine.astype(float), np.ones(len(names)), slices={"kind": names}, **changes)


def decide(made, of, margin: float = 0.1, **params):
    return made.decide(of, "slices", by="kind", margin=margin, **params)


def test_all_slices_must_pass(made):
    found = decide(made, sliced(made, {"a": 5}, {"a": 300, "b": 300}))
    assert found.decision is PASS
    assert [one.decision for one in found.slices] == [PASS, PASS]
    assert [(one.name, one.n) for one in found.slices] == [("a", 300), ("b", 300)]
    assert found.observed == pytest.approx(-5 / 300)
    assert found.reason.startswith("all 2 slices by kind pass; worst is a: ")


def test_one_bad_slice_fails_even_if_the_whole_is_good(made):
    of = sliced(made, {"rare": 40}, {"common": 5000, "rare": 150})
    found = decide(made, of)
    assert found.decision is FAIL
    assert {one.name: one.decision for one in found.slices} == {"common": PASS, "rare": FAIL}
    assert "1 of 2 slices by kind fail; worst is rare" in found.reason
    assert made.decide(of, "quality", margin=0.02).decision is PASS


def test_failing_by_holm_needs_more_among_many(made):
    """20 of 120 lost has p ≈ .007 at the margin: enough alone, not as the worst of 31."""
    alone = decide(made, sliced(made, {"a": 20}, {"a": 120}))
    many = decide(made, sliced(made, {"a": 20}, {"a": 120} | {f"s{i}": 300 for i in range(30)}))
    assert alone.decision is FAIL
    assert many.decision is OPEN
    assert many.slices[0].decision is OPEN


@pytest.mark.parametrize(("margin", "losses", "rows"), [(0.05, 0, 59), (0.05, 1, 93), (0.10, 0, 29), (0.10, 1, 46)])
def test_the_smallest_slices_that_can_pass(made, margin, losses, rows):
    enough = decide(made, sliced(made, {"a": losses}, {"a": rows}), margin)
    short = decide(made, sliced(made, {"a": losses}, {"a": rows - 1}), margin)
    assert (enough.decision, short.decision) == (PASS, OPEN)


def test_a_small_slice_is_open_and_advised(made):
    found = decide(made, sliced(made, {}, {"big": 500, "tiny": 12}))
    assert found.decision is OPEN
    assert "tiny" in found.reason
    assert "12 rows are too few" in found.reason
    assert found.advice.startswith("slice tiny: about ")
    assert "more rows would decide" in found.advice


def test_a_column_that_was_not_sliced_is_open(made):
    found = made.decide(sliced(made, {}, {"a": 500}), "slices", by="colour", margin=0.1)
    assert (found.decision, found.reason) == (OPEN, "the evidence has no slice column 'colour' (it has: kind)")
    assert made.decide(made.flips(0, 0, 9), "slices", by="colour", margin=0.1).reason.endswith("(it has: none)")


def test_an_empty_name_and_no_rows_at_all(made):
    assert decide(made, sliced(made, {}, {"": 300})).slices[0].name == "(empty)"
    nothing = made.outcomes(np.empty(0), np.empty(0), slices={"kind": np.empty(0)})
    assert decide(made, nothing).decision is OPEN


def test_the_screen_points_without_deciding(made):
    of = sliced(made, {"a": 9}, {"a": 300, "b": 300, "c": 300})
    found = decide(made, of)
    assert found.decision is PASS
    assert {one.name: one.screen for one in found.slices} == {"a": True, "b": False, "c": False}


def test_the_screen_counts_one_row_of_each_group(made):
    """A few copies silenced it; and nine losses of one input are one."""
    of = sliced(made, {"a": 9}, {"a": 300, "b": 300, "c": 300})
    lost = np.flatnonzero(of.engine[:, 0] != of.reference[:, 0])
    few, one = np.arange(900), np.arange(900)
    few[-3:], one[lost] = 896, lost[0]
    assert [found.screen for found in decide(made, replace(of, groups=few)).slices] == [True, False, False]
    assert not any(found.screen for found in decide(made, replace(of, groups=one)).slices)


def test_slices_without_labels(made):
    of = sliced(made, {"a": 2}, {"a": 300, "b": 300}, labelled=False)
    found = decide(made, of)
    assert (found.decision, found.notes) == (PASS, ("agreement-only",))
    assert not any(one.screen for one in found.slices)
    assert decide(made, sliced(made, {"a": 250}, {"a": 300, "b": 300}, labelled=False)).decision is OPEN


def test_slices_of_errors_are_in_their_own_direction(made):
    rng = np.random.default_rng(0)
    reference = np.abs(rng.normal(size=600))
    kind = np.repeat(["a", "b"], 300)
    engine = reference + np.where(kind == "b", 0.5, 0.0) + 0.01 * rng.normal(size=600)
    found = decide(made, made.outcomes(engine, reference, metric="mae", slices={"kind": kind}))
    assert found.decision is FAIL
    assert found.limit == 0.1
    assert found.slices[1].low == pytest.approx(0.5, abs=0.01)
