from __future__ import annotations

from pathlib import Path

import pytest

from qpipe.errors import ConfigError
from qpipe.flow.finished.runs import KeptRun, find_cell, keep_result, latest_with_cell, recall_run
from qpipe.records.data import DataSpec
from qpipe.records.pipeline import Pipeline
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
