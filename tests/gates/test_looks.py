"""The ledger of looks: what is free, what costs, and that all looks together stay below .05."""

from __future__ import annotations

import pytest

from qpipe.gates.looks import Family, Look, alpha_of, look_advice, past_looks, record_look, take_look
from qpipe.records.verdict import Decision
from qpipe.store import Store

FAMILY = Family(model_digest="m", target="cpu", gate_set="g", toolchain=(("onnxruntime", "1.31.1"),))


def look(number: int, finalists: int = 1) -> Look:
    return Look(number=number, run="r", finalists=finalists, evidence=("e",))


def test_the_first_look_has_most_of_the_error_rate():
    assert alpha_of(look(1)).to_pass == 0.04
    assert alpha_of(look(1, finalists=4)).to_pass == 0.01
    assert alpha_of(look(2)).to_pass == pytest.approx(0.01 * 6 / (3.141592653589793**2 * 4))
    assert alpha_of(look(7)).to_fail == 0.025


def test_all_looks_together_stay_below_five_per_cent():
    assert sum(alpha_of(look(number)).to_pass for number in range(1, 10_000)) < 0.05


def test_cached_evidence_is_free():
    first, past = take_look((), evidence="a", run="one")
    again, after = take_look(past, evidence="a", run="two")
    assert (again, after) == (first, past)


def test_new_evidence_is_a_new_look():
    _, past = take_look((), evidence="a", run="one")
    second, past = take_look(past, evidence="b", run="two")
    third, _ = take_look(past, evidence="c", run="three")
    assert (second.number, third.number) == (2, 3)


def test_fresh_evidence_counts_even_if_it_is_the_same():
    _, past = take_look((), evidence="a", run="one")
    second, past = take_look(past, evidence="a", run="two", fresh=True)
    resumed, _ = take_look(past, evidence="a", run="two", fresh=True)
    assert (second.number, resumed.number) == (2, 2)


def test_declared_finalists_share_a_look_and_no_more():
    past: tuple[Look, ...] = ()
    numbers = []
    for evidence in "abc":
        found, past = take_look(past, evidence=evidence, run="one", finalists=2)
        numbers.append(found.number)
    assert numbers == [1, 1, 2]
    assert alpha_of(past[0]).to_pass == 0.02


def test_finalists_of_another_run_do_not_join():
    _, past = take_look((), evidence="a", run="one", finalists=2)
    found, _ = take_look(past, evidence="b", run="two", finalists=2)
    assert found.number == 2


def test_the_ledger_is_kept_in_the_store(tmp_path):
    store = Store(tmp_path)
    assert past_looks(store, FAMILY) == ()
    first = record_look(store, FAMILY, evidence="a", run="one")
    second = record_look(Store(tmp_path), FAMILY, evidence="b", run="two")
    assert past_looks(store, FAMILY) == (first, second)
    assert record_look(store, FAMILY, evidence="a", run="three") == first


@pytest.mark.parametrize("change", ["model_digest", "target", "gate_set"])
def test_another_model_target_or_gate_set_is_another_family(tmp_path, change):
    from dataclasses import replace

    store = Store(tmp_path)
    record_look(store, FAMILY, evidence="a", run="one")
    assert record_look(store, replace(FAMILY, **{change: "other"}), evidence="b", run="one").number == 1


def test_after_twenty_looks_a_new_gate_set_is_advised():
    assert look_advice(20, 1e-5, Decision.PASS) == ""
    assert "this is look 21 at these gate rows" in look_advice(21, 1e-5, Decision.PASS)


def test_a_later_look_that_is_open_says_what_it_asks():
    assert look_advice(1, 0.04, Decision.INCONCLUSIVE) == look_advice(2, 0.0015, Decision.FAIL) == ""
    asked = look_advice(2, alpha_of(look(2)).to_pass, Decision.INCONCLUSIVE)
    assert "look 2" in asked
    assert "PASS takes an error rate of 0.0015, at the first one it was 0.04" in asked


def test_independent_demands_of_one_run_share_a_look_and_not_its_alpha():
    first, past = take_look((), evidence="a", run="one", declared=2)
    second, past = take_look(past, evidence="b", run="one", declared=2)
    third, _ = take_look(past, evidence="c", run="one", declared=2)
    assert [found.number for found in (first, second, third)] == [1, 1, 2]
    assert alpha_of(second).to_pass == 0.04
