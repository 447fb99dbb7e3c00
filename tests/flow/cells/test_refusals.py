"""What was refused for a reason that lasts is told from the store; what broke is tried again."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from small_pipeline import write_small_pipeline

from qpipe.errors import BuildError, QuantizationError, RefusedError, UnavailableError
from qpipe.execute.children.child import _describe
from qpipe.execute.children.exits import Exit, ExitError
from qpipe.execute.children.watch import Silence
from qpipe.flow.cells.jobs import has_work, work
from qpipe.flow.cells.refusals import recall_refusal, remember_refusal
from qpipe.flow.options import RunOptions
from qpipe.flow.preflight.forecast import forecast
from qpipe.flow.workplace import open_workplace
from qpipe.store import Store


def ended(error=None, kind="failed"):
    """As a child says it: what it raised has become text."""
    said = ExitError(**_describe(error)) if error else None
    usage = {"code": 0, "signal": None, "seconds": 1.0, "cpu_seconds": 1.0, "peak_rss_bytes": 1}
    return Exit(kind=kind, result=None, error=said, log_tail="log", **usage)


REFUSED = ended(RefusedError("no operator Einsum", hint="replace it"))


@pytest.mark.parametrize(
    ("how", "lasts"),
    [
        (REFUSED, True),
        (ended(QuantizationError("node 'a' has NaN")), True),
        (ended(QuantizationError("bad allocation", lasts=False)), False),
        (ended(BuildError("vela failed (exit 1)")), False),
        (ended(UnavailableError("no phone")), False),
        (ended(ValueError("a bug")), False),
        (replace(REFUSED, kind="memory"), False),
        (ended(kind="crashed"), False),
        (ended(kind="timeout"), False),
        (ended(kind="stopped"), False),
    ],
)
def test_only_a_refusal_lasts(tmp_path, how, lasts):
    store = Store(tmp_path)
    remember_refusal(store, "key", how)
    assert (recall_refusal(store, "key") is not None) is lasts


def test_a_later_try_that_ends_otherwise_takes_it_back(tmp_path):
    store = Store(tmp_path)
    remember_refusal(store, "key", REFUSED)
    remember_refusal(store, "key", ended(kind="crashed"))
    assert recall_refusal(store, "key") is None


def test_a_refused_cell_is_told_and_not_tried(tmp_path):
    path = write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=["int8"])
    place = open_workplace(path, RunOptions(store=str(tmp_path / "store"), profile=False))
    assert has_work(place, RunOptions())
    for cell in place.cells:
        remember_refusal(place.store, cell.key, REFUSED)
    assert not has_work(place, RunOptions())
    assert has_work(place, RunOptions(fresh=True))
    assert {one.note for one in forecast(place)} == {"refused before: no operator Einsum"}
    told = work(place, RunOptions(), Silence(), threading.Event())
    assert {(one.status, one.reason, one.hint, one.refused_before) for one in told} == {
        ("failed", "no operator Einsum", "replace it", True)
    }


def test_recipes_of_the_same_stages_keep_their_names(tmp_path):
    """Their cells have one key, and each its own place in what is told."""
    path = write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=["fp16", {"name": "half", "stages": ["fp16"]}])
    place = open_workplace(path, RunOptions(store=str(tmp_path / "store"), profile=False))
    executor = SimpleNamespace(run=lambda jobs, *, done, **_: [done(job, REFUSED) for job in jobs])
    told = work(replace(place, executor=executor), RunOptions(), Silence(), threading.Event())
    assert len({cell.key for cell in place.cells}) == 2
    assert [one.cell.recipe.name for one in told] == ["none", "fp16", "half"]
