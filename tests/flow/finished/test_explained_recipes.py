"""Which recipe `qpipe explain` means by the name that a run has kept."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from small_pipeline import write_small_pipeline

from qpipe.cli.guarded import run_app
from qpipe.execute.children.exits import Exit, ExitError
from qpipe.execute.executor import LocalExecutor
from qpipe.execute.work.explaining import FILE
from qpipe.flow.finished.explanation import _recipe, _stopped, changed_since
from qpipe.flow.finished.runs import keep_run
from qpipe.flow.options import RunOptions
from qpipe.flow.workplace import open_workplace
from qpipe.records.codec import encode
from qpipe.records.explanation import Explanation
from qpipe.records.pipeline import RecipeSpec, SearchSpec
from qpipe.records.recipe import StageSpec
from qpipe.records.result import CellResult, RunResult, SearchTrial
from qpipe.records.verdict import Decision

OWN = RecipeSpec(name="own", stages=(StageSpec(name="fold"),))
WRITTEN = RecipeSpec(name="written", stages=(StageSpec(name="fp16"),))
FOUND = (StageSpec(name="calibrate"), StageSpec(name="quantize", params={"ranges": "mse"}))


@pytest.mark.parametrize(
    ("name", "stages"),
    [("own", OWN.stages), ("written", WRITTEN.stages), ("tuned1", FOUND), ("int8", None)],
)
def test_own_recipes_candidates_and_what_a_search_made_keep_their_stages(name, stages):
    told = {"recipe": "tuned1", "chosen": True, "reason": ""}
    trials = (
        SearchTrial(model="m", target="other", stages=WRITTEN.stages, **told),  # a search names them by number
        SearchTrial(model="m", target="t", stages=FOUND, **told),
    )
    kept = SimpleNamespace(
        pipeline=SimpleNamespace(recipes=(OWN,), search=SearchSpec(candidates=(WRITTEN,))),
        result=SimpleNamespace(search=trials),
    )
    assert _recipe(SimpleNamespace(model="m", target="t", recipe=name), kept) == RecipeSpec(name=name, stages=stages)


@pytest.mark.parametrize("profile", [True, False])
def test_what_is_no_longer_as_it_was_judged_is_told(tmp_path, monkeypatch, profile):
    monkeypatch.chdir(tmp_path)
    path = write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=["int8"])
    workplace = open_workplace(path, RunOptions(offline=True, store=str(tmp_path / "store"), profile=profile))
    for cell in workplace.cells:
        was = SimpleNamespace(model=cell.model.name, target=cell.target.name, recipe=cell.recipe.name, key=cell.key)
        spec = RecipeSpec(name=cell.recipe.name)
        assert changed_since(workplace, was, spec) == ()
        assert changed_since(workplace, SimpleNamespace(**{**vars(was), "key": "older"}), spec)[0].startswith(
            "made anew"
        )


NOT_PREPARED = "it stopped before its graph was prepared"


@pytest.mark.parametrize(
    ("spaces", "said"),
    [
        ((), NOT_PREPARED),
        (
            ("prepared",),
            "its graph was prepared (fold, calibrate, smooth, quantize, correct-bias); it stopped before its",
        ),
        (("prepared", "engine"), "it was prepared and built"),
    ],
)
def test_how_far_a_broken_cell_came_is_read_from_the_store(tmp_path, monkeypatch, spaces, said):
    monkeypatch.chdir(tmp_path)
    path = write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=["int8"])
    workplace = open_workplace(path, RunOptions(offline=True, store=str(tmp_path / "store")))
    cell = next(one for one in workplace.cells if not one.recipe.is_reference)
    keys = {"prepared": cell.prepare.digest, "engine": cell.build.digest}
    for space in spaces:
        workplace.store.remember(space, keys[space], "00" * 32)
    assert _stopped(workplace.store, cell, ()).startswith(said)
    assert _stopped(workplace.store, cell, ("made anew",)) == ""


def ended(kind, *, result=None, error=None):
    spent = {"seconds": 0.0, "cpu_seconds": 0.0, "peak_rss_bytes": 0}
    return Exit(kind=kind, code=0, signal=None, result=result, error=error, log_tail="", **spent)


def test_a_cell_that_cannot_be_explained_stops_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=["int8", "fp16"])
    options = RunOptions(offline=True, store=str(tmp_path / "store"))
    workplace = open_workplace(path, options)
    found = tuple(
        CellResult(
            key=one.key,
            model=one.model.name,
            recipe=one.recipe.name,
            target="cpu-local",
            status="ok",
            decision=Decision.PASS,
        )
        for one in workplace.cells
        if not one.recipe.is_reference
    )
    bad, good = found
    broken = replace(good, recipe="none", status="crashed", decision=None, reason="signal 11", hint="look")
    result = RunResult(
        run_id="r1", mlflow_run_id=None, pipeline="p", exit_code=0, warnings=(), cells=(*found, broken), promoted=()
    )
    keep_run(workplace, result)
    said = Explanation(
        cell=good.label, metric="accuracy", role="gate", rows=4, steps=(), layers=(), placement=None, remarks=()
    )
    name = workplace.store.put_bytes(encode(said).encode(), name=FILE)
    why = ExitError(type="BuildError", message="no kernel", hint="another recipe", code=5)

    def run(_self, jobs, *, watch, stop, done):
        for job in jobs:
            done(job, ended("ok", result=name) if job.label == good.label else ended("failed", error=why))

    monkeypatch.setattr(LocalExecutor, "run", run)
    assert run_app(["explain", "--store", options.store, "--json"]) == 5
    document = json.loads(capsys.readouterr().out)
    assert [one["cell"] for one in document["cells"]] == [good.label]
    assert document["not_explained"] == [
        {"cell": bad.label, "reason": "no kernel", "hint": "another recipe", "stopped": NOT_PREPARED},
        {"cell": broken.label, "reason": "crashed: signal 11", "hint": "look", "stopped": ""},
    ]
    assert run_app(["explain", "--store", options.store]) == 5
    shown = capsys.readouterr()
    assert good.label in shown.out
    told = f"error: {bad.label} could not be explained: no kernel\nnote: {NOT_PREPARED}\nhint: another recipe\n"
    assert told in shown.err
    assert run_app(["explain", "--store", options.store, "--cell", good.label]) == 0
