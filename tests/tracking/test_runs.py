import dataclasses
import math
import os
import threading
from types import SimpleNamespace

import pytest

from qpipe.errors import ConfigError
from qpipe.records.result import Promoted
from qpipe.tracking.experiment import Dataset

DATASET = Dataset(name="digits-gate", digest="cd" * 32, source="gate.npz", rows=500)


def log_all(tracker, result, folder, run_id="run-1"):
    parent = tracker.start(run_id, "digits", {"recipes": "int8"})
    evidence = folder / "evidence"
    evidence.mkdir(exist_ok=True)
    (evidence / "evidence.json").write_text("{}")
    (evidence / "evaluation.npz").write_bytes(b"arrays")
    logged = tracker.log_cell(parent, result, evidence=evidence, dataset=DATASET)
    tracker.finish(parent, "FINISHED")
    return parent, logged


def children(tracker, parent):
    found = tracker.client.search_runs([tracker.experiment_id], f"tags.mlflow.parentRunId = '{parent}'")
    return [run.info.run_id for run in found]


def models(tracker):
    return [model.model_id for model in tracker.client.search_logged_models([tracker.experiment_id])]


def test_a_cell_is_logged_with_metrics_bound_to_model_and_dataset(tracker, result, tmp_path):
    parent, logged = log_all(tracker, result, tmp_path)

    run = tracker.client.get_run(logged.run_id)
    assert run.data.metrics["accuracy"] == 0.97
    assert run.data.metrics["batch_1/ratio"] == 0.5
    assert run.data.tags["qpipe.decision"] == "PASS"
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.info.status == "FINISHED"
    found = tracker.client.search_logged_models(
        [tracker.experiment_id],
        "metrics.accuracy >= 0.9",
        datasets=[{"dataset_name": "digits-gate", "dataset_digest": ("cd" * 32)[:36]}],
    )
    assert [model.model_id for model in found] == [logged.model_id]
    assert str(found[0].status) == "READY"


def test_evidence_lies_under_its_digest(tracker, result, tmp_path):
    _, logged = log_all(tracker, result, tmp_path)

    names = [item.path for item in tracker.client.list_artifacts(logged.run_id, f"evidence/{result.evidence.digest}")]

    assert sorted(name.rpartition("/")[2] for name in names) == ["evaluation.npz", "evidence.json"]


def test_a_repeated_run_makes_nothing_new(tracker, result, tmp_path):
    first = log_all(tracker, result, tmp_path)
    history = tracker.client.get_metric_history(first[1].run_id, "accuracy")

    assert log_all(tracker, result, tmp_path) == first
    assert children(tracker, first[0]) == [first[1].run_id]
    assert models(tracker) == [first[1].model_id]
    assert tracker.client.get_metric_history(first[1].run_id, "accuracy") == history


def test_a_cell_killed_before_its_last_tag_is_logged_again_without_doubles(tracker, result, tmp_path):
    parent, logged = log_all(tracker, result, tmp_path)
    tracker.client.delete_tag(logged.run_id, "qpipe.complete")
    tracker.client.update_run(logged.run_id, status="RUNNING")

    assert log_all(tracker, result, tmp_path) == (parent, logged)
    assert len(tracker.client.get_metric_history(logged.run_id, "accuracy")) == 1
    assert len(tracker.client.get_logged_model(logged.model_id).metrics) == len(
        tracker.client.get_run(logged.run_id).data.metrics
    )
    assert tracker.client.get_run(logged.run_id).info.status == "FINISHED"


def test_two_that_log_the_same_cell_at_once_take_turns(tracker, make, engine, tmp_path):
    result = make.result(engine)
    parent = tracker.start("run-1", "digits", {})
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(tracker.log_cell(parent, result, dataset=DATASET)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert found[1:] == found[:1] * 2


def test_a_cell_measured_anew_in_the_same_run_shows_its_new_figures(tracker, make, engine, tmp_path, monkeypatch):
    _, logged = log_all(tracker, make.result(engine, accuracy=0.97), tmp_path)
    _, again = log_all(tracker, make.result(engine, accuracy=0.91), tmp_path)

    assert again == logged
    assert tracker.client.get_run(logged.run_id).data.metrics["accuracy"] == 0.91
    monkeypatch.setattr("qpipe.tracking.cells.time", SimpleNamespace(time=lambda: 0.0))  # a clock that was set back
    log_all(tracker, make.result(engine, accuracy=0.85), tmp_path)
    assert tracker.client.get_run(logged.run_id).data.metrics["accuracy"] == 0.85


def test_the_heartbeat_names_the_process_that_resumed(tracker):
    parent = tracker.start("run-7", "digits", {})
    tracker.client.set_tag(parent, "qpipe.heartbeat", "1@elsewhere 2026-01-01T00:00:00+00:00")
    tracker.start("run-7", "digits", {})
    assert tracker.client.get_run(parent).data.tags["qpipe.heartbeat"].startswith(f"{os.getpid()}@")


def test_a_model_left_pending_by_a_kill_is_finished(tracker, result, tmp_path):
    tracker.client.create_logged_model(tracker.experiment_id, name="x", tags={"qpipe.engine": result.engine.digest})

    _, logged = log_all(tracker, result, tmp_path)

    assert models(tracker) == [logged.model_id]
    assert str(tracker.client.get_logged_model(logged.model_id).status) == "READY"


def test_doubles_of_a_retried_create_are_deleted_and_the_oldest_adopted(tracker):
    tags = {"qpipe.run_id": "run-2", "qpipe.role": "pipeline"}
    oldest = tracker.client.create_run(tracker.experiment_id, tags=tags, start_time=1)
    tracker.client.create_run(tracker.experiment_id, tags=tags, start_time=2)

    assert tracker.start("run-2", "digits", {}) == oldest.info.run_id
    assert len(tracker.client.search_runs([tracker.experiment_id])) == 1


def test_threads_that_start_the_same_run_make_one(tracker):
    found = []
    threads = [threading.Thread(target=lambda: found.append(tracker.start("run-3", "x", {}))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (there,) = tracker.client.search_runs([tracker.experiment_id])
    assert found == [there.info.run_id] * 6


def test_a_run_joins_the_users_run(tracker, database, tmp_path):
    outer = tracker.client.create_run(tracker.experiment_id).info.run_id

    parent = tracker.start("run-4", "digits", {}, join=outer)

    assert tracker.client.get_run(parent).data.tags["mlflow.parentRunId"] == outer
    assert tracker.start("run-4", "digits", {}, join=outer) == parent


def test_a_run_of_another_server_cannot_be_joined(tracker):
    with pytest.raises(ConfigError, match="run 0123 to be joined is not at sqlite"):
        tracker.start("run-4", "digits", {}, join="0123")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_named_and_not_logged(tracker, make, engine, tmp_path, value):
    _, logged = log_all(tracker, make.result(engine, accuracy=value), tmp_path)

    run = tracker.client.get_run(logged.run_id)

    assert "accuracy" not in run.data.metrics
    assert run.data.tags["qpipe.not_logged"] == f"accuracy={value}"


def test_a_crashed_cell_is_a_failed_run_with_reason_and_log(tracker, result):
    crashed = dataclasses.replace(
        result,
        status="crashed",
        reason="x" * 9000,
        log_tail="Segmentation fault",
        engine=None,
        evidence=None,
        decision=None,
    )
    parent = tracker.start("run-5", "digits", {})

    logged = tracker.log_cell(parent, crashed)

    run = tracker.client.get_run(logged.run_id)
    assert run.info.status == "FAILED"
    assert len(run.data.tags["qpipe.reason"]) == 8000
    assert run.data.tags["qpipe.reason"].endswith("…")
    assert "log_tail.txt" in [item.path for item in tracker.client.list_artifacts(logged.run_id)]


def test_one_engine_in_two_cells_is_one_model(tracker, result, make, tmp_path):
    parent = tracker.start("run-6", "digits", {})
    first = tracker.log_cell(parent, result)
    second = tracker.log_cell(parent, dataclasses.replace(result, key="33" * 32))
    other = tracker.log_cell(parent, make.result(make.engine(tmp_path / "other", content=b"other"), key="44" * 32))

    assert first.model_id == second.model_id != other.model_id
    assert len({first.run_id, second.run_id, other.run_id}) == 3


def test_recipes_of_the_same_stages_are_two_runs(tracker, result):
    """Their cells have one key: the second was not logged."""
    parent = tracker.start("run-7", "digits", {})
    logged = [tracker.log_cell(parent, dataclasses.replace(result, recipe=recipe)) for recipe in ("int8", "mine")]
    assert [tracker.client.get_run(one.run_id).info.run_name for one in logged] == [
        "digits/int8/cpu-local",
        "digits/mine/cpu-local",
    ]


def test_a_cell_shows_its_plots_and_leads_to_the_report(tracker, result, tmp_path):
    parent = tracker.start("run-8", "digits", {})
    plot = tmp_path / "latency.svg"
    plot.write_text("<svg/>")

    logged = tracker.log_cell(parent, result, plots=(plot,))

    assert [item.path for item in tracker.client.list_artifacts(logged.run_id, "plots")] == ["plots/latency.svg"]
    run = tracker.client.get_run(logged.run_id)
    assert f"runs/{parent}/artifacts/report.html" in run.data.tags["mlflow.note.content"]
    assert "PASS" in run.data.tags["mlflow.note.content"]
    assert "in `plots`" in run.data.tags["mlflow.note.content"]


def test_a_cell_without_plots_promises_none(tracker, result):
    logged = tracker.log_cell(tracker.start("run-9", "digits", {}), result)
    note = tracker.client.get_run(logged.run_id).data.tags["mlflow.note.content"]
    assert "report.html" in note
    assert "plots" not in note


def test_a_promotion_by_hand_is_added_to_what_its_run_promoted(tracker):
    parent = tracker.start("run-hand", "digits", {})
    for version in ("3", "4", "3"):
        tracker.note_promoted(parent, Promoted(model="digits", version=version, alias="champion", engine="e" * 64))
    assert tracker.client.get_run(parent).data.tags["qpipe.promoted"] == "digits v3 as champion, digits v4 as champion"
    gone = Promoted(model="digits", version="1", alias="champion", engine="e" * 64)
    tracker.note_promoted("0" * 32, gone)  # of another server, or deleted for good
