from __future__ import annotations

from pathlib import Path

import pytest

from qpipe.errors import ConfigError
from qpipe.flow.finished.runs import KeptRun, find_cell, keep_result, recall_run
from qpipe.records.data import DataSpec
from qpipe.records.pipeline import Pipeline
from qpipe.records.result import RunResult
from qpipe.store import Store


def kept(run_id: str, folder: Path) -> KeptRun:
    data = DataSpec(inputs=(), label=None, preprocess=(), roles=())
    pipeline = Pipeline(
        name="p", folder=folder, models=(), metric="accuracy", task=None, data=data, targets=(), recipes=(), gates=()
    )
    result = RunResult(run_id=run_id, mlflow_run_id=None, pipeline="p", exit_code=0, warnings=(), cells=(), promoted=())
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
