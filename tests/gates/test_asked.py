"""A gate that asks for something else than at the first look: the verdict says so."""

from __future__ import annotations

import pytest

from qpipe.gates.asked import is_change, with_changes
from qpipe.gates.looks import Family, first_gates, past_looks, record_look
from qpipe.records.verdict import Decision, GateSpec, Verdict
from qpipe.store import Store

FAMILY = Family(model_digest="m", target="cpu", gate_set="g", toolchain=(("onnxruntime", "1.31.1"),))


def gate(name="quality", *, required=True, **params):
    return GateSpec(name=name, type=name, params=params, required=required)


def noted(store, *gates):
    """The notes on a verdict of each gate, after a look at the family."""
    verdicts = [Verdict(gate=one.name, decision=Decision.PASS, reason="", notes=("mark",)) for one in gates]
    return [one.notes[1:] for one in with_changes(verdicts, gates, first_gates(store, FAMILY, gates))]


def test_a_wider_margin_is_told_ever_after(tmp_path):
    store = Store(tmp_path)
    record_look(store, FAMILY, evidence="e", run="one")
    assert noted(store, gate(margin=0.01)) == [()]
    assert noted(store, gate(margin=0.02)) == [("margin was 0.01 at the first look and is 0.02 now",)]
    record_look(store, FAMILY, evidence="f", run="two")
    assert noted(store, gate(margin=0.03)) == [("margin was 0.01 at the first look and is 0.03 now",)]
    assert noted(store, gate(margin=0.01)) == [()]
    assert [look.number for look in past_looks(store, FAMILY)] == [1, 2]


@pytest.mark.parametrize(
    ("first", "now", "note"),
    [
        (gate(p95={"at_most_ms": 5}), gate(p95={"at_most_ms": 9}), "p95 at_most_ms was 5{}9"),
        (gate(margin=0.1), gate(margin=0.1, required=False), "required was true{}false"),
        (gate(margin=0.1), gate(margin=0.1, confidence=0.8), "confidence was not set{}0.8"),
    ],
)
def test_whatever_a_gate_asks_for_is_compared(tmp_path, first, now, note):
    store = Store(tmp_path)
    noted(store, first)
    ((found,),) = noted(store, now)
    assert found == note.format(" at the first look and is ") + " now"
    assert is_change(found)


def test_a_gate_under_another_name_or_gone_is_told(tmp_path):
    """Renaming a gate was a way to a wider margin that left no note."""
    store, wide = Store(tmp_path), GateSpec(name="wide", type="quality", params={"margin": 0.05})
    noted(store, gate("floor", at_least=0.9), gate(margin=0.01), gate("finite"))
    gone = "gate {} was asked at the first look and is gone now"
    assert noted(store, gate("floor", at_least=0.9), wide, gate("finite")) == [
        (),
        (gone.format("quality (margin 0.01)"),),
        (),
    ]
    assert noted(store, gate("floor", at_least=0.9), gate(margin=0.01)) == [
        (gone.format("finite"),),
        (gone.format("wide (margin 0.05)"),),
    ]
    assert is_change(gone)


def test_a_gate_that_was_not_required_may_go(tmp_path):
    store = Store(tmp_path)
    noted(store, gate(margin=0.01), gate("floor", required=False, at_least=0.9))
    assert noted(store, gate(margin=0.01)) == [()]


def test_a_gate_that_joins_later_has_its_own_first_look(tmp_path):
    store = Store(tmp_path)
    noted(store, gate(margin=0.01))
    assert noted(store, gate(margin=0.01), gate("floor", at_least=0.9)) == [(), ()]
    assert noted(store, gate(margin=0.01), gate("floor", at_least=0.8)) == [
        (),
        ("at_least was 0.9 at the first look and is 0.8 now",),
    ]
    assert not is_change("agreement-only")
