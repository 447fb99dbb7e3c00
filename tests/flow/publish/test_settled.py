"""A run whose log is whole stays so while only other runs of ours write to the database."""

import json
from dataclasses import replace

import pytest
from small_pipeline import write_small_pipeline

from qpipe.execute.children.watch import Silence
from qpipe.flow.cells.refusals import Refused
from qpipe.flow.finished.runs import keep_run
from qpipe.flow.options import RunOptions
from qpipe.flow.publish.settled import database_state, settle, settled
from qpipe.flow.workplace import open_workplace
from qpipe.planning.offers import Offer
from qpipe.records.codec import encode
from qpipe.records.engine import Availability, Engine, Ready, Unavailable
from qpipe.records.result import CellResult, Promoted, RunResult
from qpipe.records.tensors import Signature


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_text("")
    path = write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=["int8"])
    return open_workplace(path, RunOptions(store=str(tmp_path / "store")))


@pytest.fixture
def place(asked):
    """Without cells of its own: there is nothing to do."""
    return replace(asked, cells=())


def written(tmp_path, text):
    with (tmp_path / "mlflow.db").open("a") as database:
        database.write(text)


def run(name, *promoted):
    moved = tuple(Promoted(model=model, version="1", alias="champion", engine="e") for model in promoted)
    return RunResult(run_id=name, mlflow_run_id=name, pipeline="p", exit_code=0, warnings=(), cells=(), promoted=moved)


def ended(place, tmp_path, result, *, alone=True):
    """What a run does to the database, and what it remembers of it."""
    before = database_state(place, RunOptions())
    written(tmp_path, json.dumps(result.run_id))
    keep_run(place, result)
    settle(place, RunOptions(), result, since=before if alone else None)


def built(folder):
    return Engine(
        path=folder,
        digest="aa" * 32,
        model="small",
        model_digest="bb" * 32,
        recipe="int8",
        target="cpu-local",
        backend="onnxruntime",
        files=(),
        signature=Signature(inputs=(), outputs=()),
        kind="measured",
        requires=(),
        toolchain=(),
        placement=None,
        facts=(),
        notes=(),
    )


def still(place, name):
    return settled(place, RunOptions(), name, Silence()) is not None


def test_runs_of_ours_leave_each_other_settled(place, tmp_path):
    for name in ("a", "b", "c"):
        ended(place, tmp_path, run(name, f"model-{name}"))
    assert [still(place, name) for name in ("a", "b", "c")] == [True, True, True]


def test_whoever_else_writes_is_noticed(place, tmp_path):
    ended(place, tmp_path, run("a"))
    written(tmp_path, "somebody")
    assert not still(place, "a")
    ended(place, tmp_path, run("b"))
    assert (still(place, "a"), still(place, "b")) == (False, True)


def test_a_run_beside_which_somebody_wrote_vouches_for_itself_alone(place, tmp_path):
    ended(place, tmp_path, run("a"))
    ended(place, tmp_path, run("b"), alone=False)
    assert (still(place, "a"), still(place, "b")) == (False, True)


def test_who_promoted_to_one_name_looks_again(place, tmp_path):
    ended(place, tmp_path, run("a", "digits"))
    ended(place, tmp_path, run("b", "digits"))
    assert (still(place, "a"), still(place, "b")) == (False, True)


@pytest.mark.parametrize(("reason", "expected"), [("no driver", True), ("no memory", False), (None, False)])
def test_a_target_that_is_as_far_away_as_it_was_leaves_a_run_settled(place, asked, tmp_path, reason, expected):
    cell = asked.cells[1]
    far = CellResult(
        key=cell.key,
        model="small",
        recipe="int8",
        target="cpu-local",
        status="unavailable",
        reason="no driver",
        engine=built(place.store.root),  # its digest is that of its manifest: no object is called so
    )
    ended(place, tmp_path, replace(run("a"), cells=(far,)))
    state = Ready() if reason is None else Unavailable(reason=reason)
    offer = Offer(availability=Availability(build=Ready(), run=state), scheme=cell.scheme)
    assert still(replace(asked, cells=(cell,), offers={"cpu-local": offer}), "a") is expected


def test_a_refusal_leaves_a_run_settled_while_it_stands(place, asked, tmp_path):
    cell = asked.cells[1]
    failed = CellResult(key=cell.key, model="small", recipe="int8", target="cpu-local", status="failed", reason="no")
    ended(place, tmp_path, replace(run("a"), cells=(failed,)))
    again = replace(asked, cells=(cell,))
    assert not still(again, "a")
    asked.store.remember("refused", cell.key, encode(Refused(reason="no", hint="", log_tail="")))
    assert still(again, "a")
