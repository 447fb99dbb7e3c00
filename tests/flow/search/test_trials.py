"""What becomes of a candidate: told with its own reason, cut off, or complete though the minutes are over."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from qpipe.execute.children.exits import STOPPED
from qpipe.execute.jobs import Ranking
from qpipe.flow.search import search, trials
from qpipe.flow.search.confirmed import with_finalists
from qpipe.records.evidence import Evaluation, Evidence, NotMeasured
from qpipe.records.pipeline import RecipeSpec, SearchSpec
from qpipe.records.result import SearchTrial
from qpipe.records.verdict import GateSpec

SPENT = "the minutes of the budget were spent"


def hunt(*, over=True, objective="size"):
    return SimpleNamespace(
        model=SimpleNamespace(name="m"),
        target=SimpleNamespace(name="t"),
        budget=SimpleNamespace(is_set=lambda: over, reason=SPENT),
        rule=SimpleNamespace(objective=objective),
    )


def evaluation(nonfinite=0):
    known = {"kind": "measured", "role": "search", "data_digest": "", "metric": "accuracy", "rows": 9, "units": 9}
    return Evaluation(
        **known, value=0.5, nonfinite_rows=nonfinite, sqnr_db=9.0, cosine=1.0, outputs_digest="", seconds=0
    )


def evidence(nonfinite=0):
    return Evidence(
        digest="",
        model_digest="",
        engine_digest="",
        evaluation=evaluation(nonfinite),
        reference=evaluation(1),
        profile=NotMeasured(reason="no clock"),
        engine_size_bytes=5,
        baseline_size_bytes=9,
        placement=None,
        facts=(),
    )


@pytest.fixture(autouse=True)
def no_gates(monkeypatch):
    monkeypatch.setattr(trials, "_exact_failure", lambda *_: "")


@pytest.mark.parametrize(
    ("over", "reason", "said"),
    [(True, STOPPED, SPENT), (True, "no kernels", "failed: no kernels"), (False, STOPPED, f"failed: {STOPPED}")],
)
def test_what_the_minutes_cut_off_did_not_fail(over, reason, said):
    one = SimpleNamespace(status="failed", reason=reason)
    assert trials._trial(hunt(over=over), RecipeSpec(name="int8"), one, None).reason == said


@pytest.mark.parametrize(("objective", "size"), [("size", 5), ("latency", None)])
def test_a_size_is_known_without_a_clock_also_when_the_minutes_are_over(objective, size):
    found = trials._trial(hunt(objective=objective), RecipeSpec(name="int8"), None, evidence())
    assert found.size_bytes == size
    assert found.missing == ("no clock" if size else "")


@pytest.mark.parametrize(("nonfinite", "said"), [(1, ""), (2, "finite: 2 of 9 rows have NaN or infinity")])
def test_new_nan_is_never_good_enough(nonfinite, said):
    found = trials._trial(hunt(), RecipeSpec(name="int8"), None, evidence(nonfinite))
    assert found.fails.startswith(said)
    assert bool(found.fails) == bool(said)


@pytest.mark.parametrize(
    ("over", "kind", "error", "said"),
    [
        (False, "crashed", SimpleNamespace(message="crashed with SIGSEGV"), "crashed: crashed with SIGSEGV"),
        (True, "stopped", SimpleNamespace(message=STOPPED), SPENT),
    ],
)
def test_nodes_that_were_not_ranked_are_no_secret(over, kind, error, said):
    ended = SimpleNamespace(kind=kind, error=error, result=None)
    ranking = trials._ranking(ended, hunt(over=over).budget)
    assert ranking == Ranking(problem=said)
    (warning,) = search._unranked(hunt(), search._Ranked(recipe="int8", ranking=ranking))
    assert warning == f"search for m/t: which nodes int8 should leave in float: {said}"
    assert search._unranked(hunt(), search._Ranked(recipe="int8", ranking=Ranking())) == ()


def cell(recipe, target="t", key=""):
    return SimpleNamespace(recipe=SimpleNamespace(name=recipe), target=SimpleNamespace(name=target), key=key or recipe)


def place(*gates, objective="latency", cells=()):
    return Place(pipeline=Asked(gates=gates, search=SearchSpec(objective=objective)), cells=cells)


@dataclass(frozen=True)
class Asked:
    """As much of a pipeline as finalists need."""

    gates: tuple
    search: SearchSpec


@dataclass(frozen=True)
class Place:
    """As much of a workplace."""

    pipeline: Asked
    cells: tuple


def test_what_is_chosen_for_its_speed_must_show_it_where_it_is_judged():
    found = with_finalists(place(), (cell("int8"), cell("int8", "u"), cell("dynamic", "u")))
    asked = [(gate.name, gate.type, gate.params, gate.recipes, gate.targets) for gate in found.pipeline.gates]
    assert asked == [
        ("faster", "speedup", {"at_least": 1.0}, ("int8",), ("t",)),
        ("faster2", "speedup", {"at_least": 1.0}, ("int8", "dynamic"), ("u",)),
    ]


@pytest.mark.parametrize(
    ("gate", "added"),
    [
        ({"params": {"at_least": 1.2}}, False),
        ({"params": {"at_least": 0.5}}, True),
        ({"params": {"at_least": 1.2}, "required": False}, True),
        ({"params": {"at_least": 1.2}, "recipes": ("int8-float-stem",)}, True),
    ],
)
def test_a_pipeline_that_asks_for_speed_itself_is_left_as_it_is(gate, added):
    own = GateSpec(name="speedup", type="speedup", **gate)
    assert (len(with_finalists(place(own), (cell("int8"),)).pipeline.gates) == 2) == added
    assert with_finalists(place(own, objective="size"), (cell("int8"),)).pipeline.gates == (own,)


def test_a_finalist_that_is_demanded_anyway_is_one_cell():
    demanded = cell("int8", key="k")
    found = with_finalists(place(cells=(demanded,)), (cell("int8", key="k"), cell("fp16")))
    assert [one.recipe.name for one in found.cells] == ["int8", "fp16"]


def test_an_engine_that_two_recipes_make_is_timed_once():
    def worked(recipe, engine, *, reference=False):
        outcome = SimpleNamespace(engine=engine) if engine else None
        name = SimpleNamespace(name=recipe, is_reference=reference)
        return SimpleNamespace(cell=SimpleNamespace(recipe=name), outcome=outcome)

    all_of_them = [("none", "a", True), ("int8", "b", False), ("stem", "b", False), ("fp16", "a", False)]
    found = trials.find_twins([worked(name, engine, reference=own) for name, engine, own in all_of_them])
    assert found == {"stem": "the same engine as int8"}
    assert trials.find_twins([worked("int8", ""), worked("stem", "")]) == {}


@pytest.mark.parametrize(("units", "said"), [(2, True), (100, False), (None, False)])
def test_few_search_rows_are_told(units, said):
    assert bool(search._few_rows((SimpleNamespace(units=units), SimpleNamespace(units=None)))) == said


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((None, None, None), "no candidate was measured, float stays (a, b: cut off; c: crashed)"),
        ((5, None, None), "the float engine stays the best (a, b: cut off; c: crashed)"),
    ],
)
def test_float_is_the_best_only_of_what_was_measured(sizes, said):
    told = zip("abc", ("cut off", "cut off", "crashed"), sizes, strict=True)
    found = [
        SearchTrial(model="m", target="t", recipe=name, chosen=False, reason=why, size_bytes=size)
        for name, why, size in told
    ]
    where = SimpleNamespace(
        models=[SimpleNamespace(name="m")],
        pipeline=SimpleNamespace(targets=[SimpleNamespace(name="t"), SimpleNamespace(name="u")]),
    )
    assert search._left_float(where, found) == (f"search for m/t: {said}",)
    assert search._left_float(where, [replace(found[0], chosen=True), *found[1:]]) == ()
