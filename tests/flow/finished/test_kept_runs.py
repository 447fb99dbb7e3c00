from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qpipe.cli.guarded import run_app
from qpipe.errors import ConfigError
from qpipe.flow.finished.runs import KeptRun, find_cell, keep_result, kept_uri, latest_with_cell, recall_run
from qpipe.records.data import DataSpec
from qpipe.records.pipeline import Pipeline, TrackingSpec
from qpipe.records.result import CellResult, RunResult
from qpipe.store import Store


def kept(run_id: str, folder: Path, *models: str, pipeline_name: str = "p") -> KeptRun:
    data = DataSpec(inputs=(), label=None, preprocess=(), roles=())
    pipeline = Pipeline(
        name=pipeline_name,
        folder=folder,
        models=(),
        metric="accuracy",
        task=None,
        data=data,
        targets=(),
        recipes=(),
        gates=(),
    )
    cells = tuple(CellResult(key=f"k-{one}", model=one, recipe="int8", target="cpu", status="ok") for one in models)
    result = RunResult(
        run_id=run_id, mlflow_run_id=None, pipeline=pipeline_name, exit_code=0, warnings=(), cells=cells, promoted=()
    )
    return KeptRun(pipeline=pipeline, result=result)


def test_no_name_is_no_run_however_few_there_are(tmp_path):
    """`qpipe promote "$RUN_ID"` with the variable unset would promote the only run."""
    store = Store(tmp_path / ".qpipe")
    keep_result(store, kept("abc1", tmp_path))
    assert recall_run(store, "ab").result.run_id == "abc1"
    with pytest.raises(ConfigError, match="no run '' in the store"):
        recall_run(store, "")
    with pytest.raises(ConfigError, match="has no cell"):
        find_cell(recall_run(store, "last").result, "")


def test_a_run_is_found_by_its_whole_id_however_many_came_after(tmp_path, monkeypatch):
    monkeypatch.setattr("qpipe.flow.finished.runs.RECENT", 2)
    store = Store(tmp_path / ".qpipe")
    names = [f"{number:016x}" for number in range(4)]
    for name in names:
        keep_result(store, kept(name, tmp_path))
    assert recall_run(store, names[0]).result.run_id == names[0]
    with pytest.raises(ConfigError, match="no run 00000000000000ff"):
        recall_run(store, "00000000000000ff")


def test_a_cell_is_found_in_the_newest_run_that_holds_it(tmp_path):
    """Each of many pipelines has a run of its own, so that most cells are not in the last one."""
    store = Store(tmp_path / ".qpipe")
    keep_result(store, kept("a1", tmp_path, "resnet"))
    keep_result(store, kept("b2", tmp_path, "resnet", "unet", pipeline_name="nightly"))
    keep_result(store, kept("c3", tmp_path, "lstm"))
    for wanted in ("resnet/int8/cpu", "nightly/unet/int8/cpu"):
        found, label = latest_with_cell(store, wanted)
        assert (found.result.run_id, label) == ("b2", wanted.removeprefix("nightly/"))
    assert latest_with_cell(store, "p/resnet/int8/cpu")[0].result.run_id == "a1"


@pytest.mark.parametrize(
    ("runs", "wanted", "hint"),
    [
        (("resnet", "unet"), "resnt/int8/cpu", "resnet/int8/cpu"),
        (("resnet",), "?/?", "resnet/int8/cpu"),
        ((), "resnet/int8/cpu", "none yet"),
    ],
)
def test_a_cell_that_no_run_holds_is_answered_with_cells_of_a_like_name(tmp_path, runs, wanted, hint):
    store = Store(tmp_path / ".qpipe")
    for name in runs:
        keep_result(store, kept(name, tmp_path, name))
    with pytest.raises(ConfigError, match="has a cell") as error:
        latest_with_cell(store, wanted)
    assert hint in error.value.hint


def test_a_password_of_mlflow_is_not_kept(tmp_path, monkeypatch):
    """Stores are shared, and the pipeline file may take the password from the environment."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store, made = Store(tmp_path / ".qpipe"), kept("abc1", tmp_path)
    whole = "http://ann:s3cret@host:5000"
    keep_result(store, replace(made, pipeline=replace(made.pipeline, tracking=TrackingSpec(uri=whole))))
    assert not [file for file in tmp_path.rglob("*.json") if "s3cret" in file.read_text()]

    found = recall_run(store, "abc1").pipeline.tracking
    with pytest.raises(ConfigError, match=r"http://ann:\*\*\*@host:5000, whose password is not kept"):
        kept_uri(found, None)
    assert kept_uri(found, "http://other") == "http://other"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    with pytest.raises(ConfigError, match="is not kept"):
        kept_uri(found, None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", whole)
    assert kept_uri(found, None) == whole


def test_several_runs_are_reported_on_a_page_of_their_own_and_one_as_ever(tmp_path, capsys):
    store = Store(tmp_path / ".qpipe")
    for run_id, model in (("a1", "resnet"), ("b2", "unet"), ("c3", "lstm")):
        keep_result(store, kept(run_id, tmp_path, model))

    def files(*run_ids: str) -> tuple[dict[str, object], list[str]]:
        out = tmp_path / "-".join(run_ids)
        assert run_app(["report", *run_ids, "--store", str(store.location), "--out", str(out), "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        written = [Path(one) for one in said.pop("files")]
        assert all(one.exists() for one in written)
        return said, [str(one.relative_to(out)) for one in written]

    assert files("a1", "last", "c3") == (
        {"run_ids": ["a1", "c3"]},
        ["report.html", "a1/report.html", "c3/report.html"],
    )
    assert "c3/report.html#lstm/int8/cpu" in (tmp_path / "a1-last-c3" / "report.html").read_text()
    assert files("last") == files("last", "c3") == ({"run_id": "c3"}, ["report.html"])
