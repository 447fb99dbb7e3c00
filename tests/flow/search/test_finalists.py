"""Who may be the finalist of a search, and when a search stops."""

import threading
from types import SimpleNamespace

import pytest

from qpipe.flow.publish.log import asked_for
from qpipe.flow.search.budget import Budget
from qpipe.flow.search.finalists import Rule, choose, placement_reason, search_rule
from qpipe.records.engine import FloatNode, Placement
from qpipe.records.pipeline import SearchSpec
from qpipe.records.result import SearchTrial
from qpipe.records.verdict import GateSpec

METRIC = SimpleNamespace(higher_is_better=True)


def rule(objective="latency", margin=0.01):
    return Rule(metric=METRIC, margin=margin, objective=objective)


def trial(recipe="int8", **changes):
    told = {"value": 0.9, "reference": 0.9, "ratio": 0.5, "ratio_high": 0.55, "size_bytes": 100, "reason": "3 of 4"}
    return SearchTrial(model="m", target="t", recipe=recipe, chosen=False, **{**told, **changes})


@pytest.mark.parametrize(
    ("changes", "objection"),
    [
        ({}, ""),
        ({"value": 0.88}, "loses 0.02 on the search rows, 0.01 allowed"),
        ({"value": None, "size_bytes": None}, "3 of 4"),  # not tried: that is why
        ({"value": None}, "its metric on the search rows is undefined (no labels, or outputs that never vary)"),
        ({"value": None, "missing": "no device"}, "no device"),
        ({"ratio": None}, "its latency was not measured"),
        ({"ratio": None, "missing": "drifted"}, "its latency was not measured: drifted"),
        ({"ratio": 1.2, "ratio_high": 1.3}, "not faster than float: 1.2 of its latency (3 of 4)"),
        (
            {"ratio": 0.97, "ratio_high": 1.02},
            "not shown to be faster than float: 0.97 of its latency, but up to 1.02 with 95 % confidence (3 of 4)",
        ),
        ({"fails": "size: too large"}, "would fail size: too large"),
    ],
)
def test_objections(changes, objection):
    assert rule().objection(trial(**changes)) == objection


def test_size_does_not_mind_speed():
    assert rule("size").objection(trial(ratio=2.0, ratio_high=2.5)) == ""


def test_the_fastest_is_chosen_and_the_others_are_told():
    told, best = choose(rule(), [trial("a", ratio=0.6), trial("b", ratio=0.4), trial("c", ratio=1.1)])
    assert best is not None
    assert best.recipe == "b"
    assert [one.chosen for one in told] == [False, True, False]
    assert told[0].reason == "b measured faster: 0.4 of float's latency, here 0.6"
    assert choose(rule(), [trial(ratio=1.1)])[1] is None


@pytest.mark.parametrize(
    ("other", "winner"),
    [
        ({"ratio": 0.51, "sqnr_db": 35.0}, "b"),  # as fast as far as it was measured, and less noise
        ({"ratio": 0.51, "sqnr_db": 25.0}, "a"),
        ({"ratio": 0.53, "sqnr_db": 35.0}, "a"),  # slower than what counts as alike
    ],
)
def test_of_candidates_as_fast_as_each_other_the_least_noisy_wins(other, winner):
    _, best = choose(rule(), [trial("a", sqnr_db=30.0), trial("b", **other)])
    assert best.recipe == winner


@pytest.mark.parametrize(
    ("best", "other", "said"),
    [
        ({"ratio": 0.50, "sqnr_db": 35.0}, {"ratio": 0.495}, "b is as fast as far as was measured, and closer"),
        ({"ratio": 0.50}, {"ratio": 0.505}, "b is as fast, and no further from the float model"),  # 1 %: nobody knows
        ({"ratio": 0.50, "ratio_high": 0.62}, {"ratio": 0.6}, "not beyond doubt, it may be up to 0.62"),
    ],
)
def test_nothing_is_called_faster_that_was_not_measured_so(best, other, said):
    told, chosen = choose(rule(), [trial("a", sqnr_db=30.0, **other), trial("b", **{"sqnr_db": 30.5, **best})])
    assert chosen is not None
    assert chosen.recipe == "b"
    assert said in told[0].reason


@pytest.mark.parametrize(("sizes", "said"), [((9, 5), "b is smaller"), ((5, 5), "b is as small")])
def test_of_sizes_it_is_said_whether_they_differ(sizes, said):
    told, _ = choose(rule("size"), [trial(name, size_bytes=size) for name, size in zip("ba", sizes[::-1], strict=True)])
    assert told[1].reason == said


@pytest.mark.parametrize(("value", "winner"), [(0.9, "silent"), (0.895, "noisy")], ids=["equal", "not finite"])
def test_without_sqnr_outputs_are_the_floats_own_where_the_metric_says_so(value, winner):
    silent = trial("silent", ratio=0.5, ratio_high=0.55, sqnr_db=None, value=value)
    noisy = trial("noisy", ratio=0.5, ratio_high=0.55, sqnr_db=30.0)
    _, best = choose(rule(), [silent, noisy])
    assert best is not None
    assert best.recipe == winner


def test_the_tightest_quality_margin_counts():
    gates = tuple(GateSpec(name=str(margin), type="quality", params={"margin": margin}) for margin in (0.02, 0.01))
    assert search_rule(SimpleNamespace(gates=gates), METRIC, "size").margin == 0.01


def test_a_slow_engine_says_which_nodes_are_to_blame():
    left = tuple(FloatNode(name=f"n{number}", op="Conv", reason="Clip in between") for number in range(3))
    said = placement_reason(Placement(integer=1, float=3, elsewhere=0, left_in_float=left))
    assert said.startswith("1 of 4 quantizable nodes run in integer; in float: n0 (Conv): Clip in between; n1")
    assert said.endswith("and 1 more")


def test_minutes_stop_what_is_under_way_and_the_user_does_too():
    users = threading.Event()
    assert not Budget(users, None).is_set()
    assert not Budget(users, 5).is_set()
    spent = Budget(users, 0.0)
    assert spent.is_set()
    assert spent.reason == "the minutes of the budget were spent"
    assert spent.left_s == 0
    assert 290 < (Budget(users, 5).left_s or 0) <= 300
    assert Budget(users, None).left_s is None
    users.set()
    assert Budget(users, 5).is_set()
    assert Budget(users, 5).reason == "interrupted"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (SearchSpec(trials=20, minutes=2.5), "latency: 20 trials, 2.5 minutes"),
        (SearchSpec(objective="size", minutes=5.0), "size: 5 minutes"),
    ],
)
def test_mlflow_shows_what_was_searched_for(spec, said):
    assert asked_for(spec) == said
