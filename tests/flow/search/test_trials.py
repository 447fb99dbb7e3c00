"""What becomes of a candidate: told with its own reason, cut off, or complete though the minutes are over."""

from types import SimpleNamespace

import pytest

from qpipe.execute.children.exits import STOPPED
from qpipe.execute.jobs import Ranking
from qpipe.flow.search import search, trials
from qpipe.records.evidence import Evaluation, Evidence, NotMeasured
from qpipe.records.pipeline import RecipeSpec

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
