"""Gates of plugins: whatever their code does, a cell gets a verdict that says what was wrong, and none passes by it."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from qpipe.errors import ConfigError, DataError
from qpipe.gates import check_gates, decide_cell
from qpipe.plugins.gate import GateType
from qpipe.records.codec import decode, encode
from qpipe.records.verdict import Decision, GateSpec, SliceVerdict, Verdict, overall


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    pass


def raises(error: BaseException):
    def decide(*_):
        raise error

    return decide


def says(decision: object = Decision.PASS, **more: object):
    return lambda *_: Verdict(gate="mine", decision=decision, reason="fine", **more)


def judged(made, decide, **changes) -> Verdict:
    types = {"mine": GateType(name="mine", summary="", params=Nothing, decide=decide)}
    specs = [GateSpec(name="mine", type="mine")]
    found = decide_cell(made.flips(0, 0, 400, **changes), specs, types, alpha=made.alpha, recipe="int8", target="cpu")
    assert decode(Verdict, encode(found[0])) == found[0]
    assert (overall(found) is Decision.PASS) == (found[0].decision is Decision.PASS)
    return found[0]


@pytest.mark.parametrize(
    ("decide", "words"),
    [
        (raises(ValueError("shape mismatch")), "the gate's code raised ValueError: shape mismatch"),
        (raises(DataError("the meter's file is empty")), "the gate's code raised DataError: the meter's file is empty"),
        (raises(SystemExit(0)), "the gate's code raised SystemExit: 0"),
        (lambda *_: None, "the gate's code gave NoneType, not a Verdict"),
        (lambda *_: True, "the gate's code gave bool, not a Verdict"),
        (says("fail"), "the gate's code gave the decision 'fail', not a Decision"),
        (says(np.True_), "the gate's code gave the decision np.True_, not a Decision"),
        (says(observed=float("nan")), "the gate's code passed what is not a finite number: observed = nan"),
        (says(limit="1 mJ"), "the gate's code gave limit = '1 mJ', not a number"),
        (says(slices=("dark",)), "the gate's code gave slices that are no SliceVerdict"),
        (says(kind="guessed"), "the gate's code gave the kind 'guessed'"),
        (says(kind="estimated"), "the evidence is estimated, and this gate accepts only measured"),
    ],
)
def test_what_no_gate_may_give_is_inconclusive(made, decide, words):
    found = judged(made, decide)
    assert found.decision is Decision.INCONCLUSIVE
    assert words in found.reason


def test_numbers_of_numpy_are_numbers(made):
    one = SliceVerdict(
        name="a", decision=Decision.PASS, observed=np.float32(0.5), low=np.float64(0), high=np.inf, n=np.int64(4)
    )
    found = judged(made, says(observed=np.float32(0.5), n=np.int64(3), low=-np.inf, slices=(one,)))
    assert (found.decision, found.observed, found.n, found.low) == (Decision.PASS, 0.5, 3, None)
    assert found.slices[0].high is None
    json.loads(encode(found))


def test_what_a_gate_prints_is_no_result(made, capsys):
    def decide(*_):
        print("hello")
        return says()()

    assert judged(made, decide).decision is Decision.PASS
    assert capsys.readouterr() == ("", "hello\n")


def test_a_check_that_raises_is_an_objection(made):
    def check(*_):
        print("looking at the margin")
        raise KeyError("margin")

    gate = GateType(name="mine", summary="", params=Nothing, decide=says(), check=check)
    assert gate.objection(Nothing(), made.flips(0, 0, 400).metric) == "the gate's own check raised KeyError: 'margin'"
    with pytest.raises(ConfigError, match="gate 'mine': the gate's own check raised KeyError"):
        check_gates([GateSpec(name="mine", type="mine")], {"mine": gate}, made.flips(0, 0, 400).metric)
