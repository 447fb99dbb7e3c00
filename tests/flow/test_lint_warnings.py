"""What a run says aloud of its calibration."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from qpipe.flow.remarks import SHOWN, lint_warnings, remarks
from qpipe.records.remark import Remark
from qpipe.records.result import CellResult
from qpipe.records.verdict import Decision, Verdict


def result(label, *remarks):
    return SimpleNamespace(label=label, evidence=SimpleNamespace(remarks=remarks))


def remark(kind, subject="calibration", message="odd"):
    return Remark(kind=kind, subject=subject, message=message)


def test_a_finding_is_told_once_with_every_cell_that_it_touches():
    odd = remark("constant-input", "mask", "every value is 1")
    found = lint_warnings([result("a", odd), result("b", odd), SimpleNamespace(label="c", evidence=None)])
    assert found == ("calibration of a, b: 'mask': every value is 1",)


@pytest.mark.parametrize("kind", ["rows", "clipped"])
def test_what_only_describes_is_not_told(kind):
    assert lint_warnings([result("a", remark(kind))]) == ()


def test_many_alike_are_counted():
    found = lint_warnings([result("a", *(remark("other-rows", f"t{number}") for number in range(9)))])
    assert len(found) == SHOWN + 1
    assert found[-1].startswith(f"calibration of a: {9 - SHOWN} more like this")


@pytest.mark.parametrize(("kind", "subject"), [("neighbours", "batch"), ("copies", "gate")])
def test_what_is_said_of_answers_and_gate_rows_is_no_word_on_calibration(kind, subject):
    (line,) = lint_warnings([result("a", Remark(kind=kind, subject=subject, message="judged at 1"))])
    assert line == "a: judged at 1"


@pytest.mark.parametrize(("look", "decision", "told"), [(1, "INCONCLUSIVE", 0), (2, "INCONCLUSIVE", 1), (2, "PASS", 0)])
def test_a_run_says_that_gate_rows_were_looked_at_before(look, decision, told):
    verdict = Verdict(gate="quality", decision=Decision(decision), reason="")
    judged = CellResult(
        key="k", model="m", recipe="int8", target="t", status="ok", verdicts=(verdict,), decision=verdict.decision
    )
    workplace = SimpleNamespace(registry=SimpleNamespace(cell_finished=lambda _: ()))
    found = remarks(workplace, (replace(judged, look=look, alpha=0.0015),))
    assert len(found) == told
    assert all(line.startswith("m/int8/t: this is look 2 at these gate rows: ") for line in found)
