"""After a run: judge again, promote, roll back, verify, measure freshly, log later."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from qpipe.flow import conduct
from qpipe.flow.finished.room import REMAKABLE
from qpipe.flow.finished.runs import KeptRun, keep_result, recall_run
from qpipe.records.target import Limits
from qpipe.store import Store


def alias(folder, model="digits-cpu-local", name="champion") -> str:
    return str(MlflowClient(f"sqlite:///{folder}/mlflow.db").get_model_version_by_alias(model, name).version)


def gates(document: dict) -> dict:
    return {cell["recipe"]: cell["gates"] for cell in document["cells"]}


def test_gate_again_gives_the_same_verdicts(first_run, qpipe_in):
    folder, found = first_run
    for name in ("last", found["run_id"][:6], found["mlflow_run_id"]):
        said = qpipe_in(folder, "gate", name, "--json")
        assert said.code == 0, said.err
        assert gates(said.json) == gates(found)
        assert (said.json["run_id"], said.json["exploratory"]) == (found["run_id"], False)


def test_cleaned_of_all_that_can_be_made_again_a_store_says_the_same(first_run, qpipe_in, tmp_path):
    folder, found = first_run
    store = tmp_path / "store"
    shutil.copytree(folder / ".qpipe", store)
    kinds = {path.name for path in (store / "keys").iterdir()}
    evidence = {"cells", "looks", "runs", "settled", "settled-moves", "slots", "unlogged"}
    assert kinds - REMAKABLE.keys() <= evidence, "a kind of key that nobody has thought of: can it be made again?"
    said = qpipe_in(folder, "clean", "--older", "0", "--store", str(store), "--json").json
    assert {one["what"] for one in said["rooms"]} >= {"prepared graphs", "calibration statistics"}
    assert said["left_bytes"] == Store(store).size()
    again = qpipe_in(folder, "gate", found["run_id"], "--store", str(store), "--json")
    assert gates(again.json) == gates(found)
    cells = qpipe_in(folder, "plan", "digits.yaml", "--store", str(store), "--json").json["cells"]
    assert {one["note"] for one in cells} == {"cached"}


def test_other_gates_are_exploratory_and_never_promote(first_run, qpipe_in):
    folder, _ = first_run
    before = alias(folder)
    (folder / "strict.yaml").write_text("gates: {size: {at_most_ratio: 0.01}, quality: {margin: 0.03}}\n")
    said = qpipe_in(folder, "gate", "last", "--gates", "strict.yaml", "--json")
    assert (said.code, said.json["exploratory"]) == (3, True)
    assert said.cell("int8/cpu-local")["gates"]["size"]["verdict"] == "FAIL"
    assert alias(folder) == before
    assert qpipe_in(folder, "gate", "last", "--json").code == 0
    assert "exploratory" in qpipe_in(folder, "gate", "last", "--gates", "strict.yaml").out


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("gates: {qualiti: {margin: 0.1}}\n", 1, "did you mean 'quality'?"),
        ("gates:\n  quality: {margn: 0.1}\n", 2, "did you mean 'margin'?"),
        ("gates:\n  quality: {margin: 2}\n", 2, "only spans 0 to 1"),
    ],
)
def test_a_wrong_gates_file_is_a_line(first_run, qpipe_in, text, line, words):
    folder, _ = first_run
    (folder / "wrong.yaml").write_text(text)
    said = qpipe_in(folder, "gate", "last", "--gates", "wrong.yaml")
    assert said.code == 2
    assert f"wrong.yaml:{line}:" in said.err
    assert words in said.err


def test_an_unknown_run_lists_the_known(first_run, qpipe_in):
    folder, found = first_run
    said = qpipe_in(folder, "gate", "ffffffff")
    assert said.code == 2
    assert found["run_id"] in said.err


def test_report_writes_a_page(first_run, qpipe_in, tmp_path):
    folder, found = first_run
    said = qpipe_in(folder, "report", "last", "--out", tmp_path / "report", "--json")
    assert said.code == 0, said.err
    assert said.json["run_id"] == found["run_id"]
    page = Path(said.json["files"][0])
    assert page.name == "report.html"
    assert "digits/int8/cpu-local" in page.read_text()
    assert all(Path(name).stat().st_size for name in said.json["files"])


def test_a_verified_engine_answers_as_its_evidence_says(first_run, qpipe_in):
    folder, _ = first_run
    said = qpipe_in(folder, "verify", "models:/digits-cpu-local@champion", "--json")
    assert said.code == 0, said.out + said.err
    assert [(one["what"], one["state"]) for one in said.json["checks"]] == [("digests", "ok"), ("answers", "ok")]


def test_a_tampered_engine_does_not_verify(first_run, qpipe_in):
    folder, _ = first_run
    source = MlflowClient(f"sqlite:///{folder}/mlflow.db").get_model_version("digits-cpu-local", "1").source
    (file,) = (folder / "mlartifacts").rglob(f"{source.removeprefix('models:/')}/**/engine/model.onnx")
    whole = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        said = qpipe_in(folder, "verify", "models:/digits-cpu-local/1", "--json")
    finally:
        file.write_bytes(whole)
    assert (said.code, said.json["ok"]) == (5, False)
    assert said.json["checks"][0]["state"] == "broken"
    assert "sha256" in said.json["checks"][0]["found"]


def test_other_data_does_not_verify(first_run, qpipe_in, tmp_path):
    folder, _ = first_run
    kept = (folder / "gate.npz").read_bytes()
    rows = dict(np.load(folder / "gate.npz"))
    np.savez(folder / "gate.npz", **{name: values[::-1] for name, values in rows.items()})
    try:
        said = qpipe_in(folder, "verify", "models:/digits-cpu-local@champion", "--json")
    finally:
        (folder / "gate.npz").write_bytes(kept)
    assert said.code == 5
    assert said.json["checks"][1] == {
        "what": "answers",
        "state": "broken",
        "found": "the gate data has changed since: its answers cannot be compared",
    }


def test_an_engine_of_another_store_is_not_called_ok(first_run, qpipe_in, tmp_path):
    folder, _ = first_run
    said = qpipe_in(folder, "verify", "models:/digits-cpu-local@champion", "--store", tmp_path / "other", "--json")
    assert said.code == 5
    assert said.json["checks"][1]["state"] == "not checked"


HANGS = "import time\n\n\ndef rows():\n    time.sleep(600)\n    yield {}\n"
CRASHES = "import os\n\n\ndef rows():\n    os.abort()\n    yield {}\n"


def rows_from(source, pipeline, folder):
    """The pipeline with data that this module yields, within the engine's process."""
    (folder / "fatal.py").write_text(source)
    roles = tuple(replace(role, npz=None, fn="fatal:rows", fn_path=folder) for role in pipeline.data.roles)
    return replace(pipeline, data=replace(pipeline.data, roles=roles))


def hanging(pipeline, folder):
    """Its process would outlast any limit; this one, however quick the machine is."""
    (target,) = pipeline.targets
    limited = replace(target, limits=Limits(timeout_s=0.5))
    return replace(rows_from(HANGS, pipeline, folder), targets=(limited,))


def crashing(pipeline, folder):
    """The process dies in mid-work, as in a vendor's library."""
    return rows_from(CRASHES, pipeline, folder)


@pytest.mark.parametrize(("spoil", "words"), [(hanging, "stopped at its limit of 0.5 s"), (crashing, "SIGABRT")])
def test_an_engine_that_takes_its_process_down_does_not_verify(first_run, qpipe_in, tmp_path, spoil, words):
    folder, _ = first_run
    kept = recall_run(Store(folder / ".qpipe"), "last")
    other = tmp_path / "store"
    keep_result(Store(other), KeptRun(pipeline=spoil(kept.pipeline, tmp_path), result=kept.result))

    said = qpipe_in(folder, "verify", "models:/digits-cpu-local@champion", "--store", other)

    assert said.code == 5, said.err
    digests, answers = said.out.splitlines()
    assert digests.startswith("ok")
    assert answers.startswith("broken")
    assert words in answers
    assert "Traceback" not in said.out + said.err


@pytest.mark.parametrize("uri", ["models:/digits-cpu-locl@champion", "models:/digits-cpu-local@chmpion", "digits"])
def test_verify_says_what_there_is(first_run, qpipe_in, uri):
    folder, _ = first_run
    said = qpipe_in(folder, "verify", uri)
    assert said.code == 2
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 2


def test_history_shows_the_move(first_run, qpipe_in):
    folder, found = first_run
    (move,) = qpipe_in(folder, "history", "digits-cpu-local", "--json").json["moves"]
    assert (move["alias"], move["action"], move["version"], move["previous"]) == ("champion", "promote", "1", None)
    assert move["engine"] == found["promoted"][0]["engine"]


@pytest.fixture(scope="module")
def life(tmp_path_factory, small, empty_database) -> Path:
    """A folder in which one story is told, test after test."""
    folder = tmp_path_factory.mktemp("life")
    for path in small.iterdir():
        shutil.copy(path, folder)
    shutil.copy(empty_database, folder / "mlflow.db")
    return folder


def test_a_story_of_promotions(life, make, qpipe_in):
    """First champion, another calibration as second, back, forward by hand, and somebody who meddles."""
    model = "small-cpu-local"
    make.pipeline(life)
    first = qpipe_in(life, "run", "small.yaml", "--no-profile", "--json")
    assert first.code == 0, first.err
    data = {
        "label": "label",
        "calibration": {"npz": "calibration.npz", "samples": 32},
        "gate": {"npz": "gate.npz"},
    }
    make.pipeline(life, "second.yaml", data=data)
    second = qpipe_in(life, "run", "second.yaml", "--no-profile", "--no-promote", "--json")
    assert second.code == 0, second.err
    assert second.json["promoted"] == []
    assert alias(life, model) == "1"
    alphas = [run.cell("int8/cpu-local")["gates"]["quality"]["alpha"] for run in (first, second)]
    assert alphas == [0.04, pytest.approx(0.01 * 6 / (np.pi**2 * 4))]  # the second look at the same rows

    refused = qpipe_in(life, "promote", second.json["run_id"], "--expect", "7", "--json")
    assert refused.code == 5
    assert "version 1" in refused.json["error"]["message"]
    by_hand = qpipe_in(life, "promote", second.json["run_id"], "--expect", "1", "--json")
    assert by_hand.code == 0, by_hand.err
    assert by_hand.json["promoted"][0]["version"] == "2"
    assert alias(life, model) == "2"
    of_its_run = MlflowClient(f"sqlite:///{life}/mlflow.db").get_run(second.json["mlflow_run_id"]).data.tags
    assert of_its_run["qpipe.promoted"] == f"{model} v2 as champion"

    back = qpipe_in(life, "rollback", model, "--reason", "slower in production", "--json")
    assert back.code == 0, back.err
    assert alias(life, model) == back.json["promoted"][0]["version"] == "1"
    again = qpipe_in(life, "promote", second.json["run_id"])
    assert again.code == 5
    assert "taken back" in again.err
    moves = qpipe_in(life, "history", model, "--json").json["moves"]
    assert [(move["action"], move["version"]) for move in moves] == [
        ("promote", "1"),
        ("promote", "2"),
        ("rollback", "1"),
    ]
    assert moves[-1]["reason"] == "slower in production"


def test_an_alias_that_somebody_else_moved(life, make, qpipe_in):
    """After the story: the run that would move it says who is at fault, is exit 5, and is logged all the same."""
    model = "small-cpu-local"
    mlflow = MlflowClient(f"sqlite:///{life}/mlflow.db")
    mlflow.set_registered_model_alias(model, "champion", "2")
    make.pipeline(life, gates={"quality": {"margin": 0.06}, "finite": {}})
    said = qpipe_in(life, "run", "small.yaml", "--no-profile", "--json")
    assert said.code == 5
    assert said.cell("int8/cpu-local")["verdict"] == "PASS"
    assert said.json["promoted"] == []
    changed, warning = said.json["warnings"]
    assert "margin was" in changed
    assert "moved by somebody outside the ledger" in warning
    assert alias(life, model) == "2"
    assert mlflow.get_run(said.json["mlflow_run_id"]).info.status == "FAILED"
    mended = qpipe_in(life, "history", model, "--json").json["reconciled"]
    assert [move["version"] for move in mended] == ["1"]
    assert alias(life, model) == "1"
    assert qpipe_in(life, "run", "small.yaml", "--no-profile", "--json").code == 0


def test_fresh_is_a_new_look_with_a_smaller_alpha(life, make, qpipe_in):
    make.pipeline(life)
    before = qpipe_in(life, "run", "small.yaml", "--no-profile", "--json")
    fresh = qpipe_in(life, "run", "small.yaml", "--no-profile", "--fresh", "--json")
    assert fresh.code == 0, fresh.err
    assert fresh.json["run_id"] != before.json["run_id"]
    assert not fresh.cell("int8/cpu-local")["cached"]
    old, new = (run.cell("int8/cpu-local")["gates"]["quality"]["alpha"] for run in (before, fresh))
    assert new < old
    after = qpipe_in(life, "run", "small.yaml", "--no-profile", "--json")
    assert after.cell("int8/cpu-local")["cached"]
    assert after.cell("int8/cpu-local")["gates"]["quality"]["alpha"] == new  # what stands in the store now


def test_a_tampered_store_is_refused_by_name(life, make, qpipe_in):
    make.pipeline(life)
    cell = qpipe_in(life, "run", "small.yaml", "--no-profile", "--json").cell("int8/cpu-local")
    file = Path(cell["engine"]["path"]) / "model.onnx"
    whole = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said = qpipe_in(life, "run", "small.yaml", "--no-profile", "--json")
    file.write_bytes(whole)
    assert said.code == 5
    assert cell["engine"]["path"] in said.json["error"]["message"]
    assert said.json["error"]["hint"]


def test_offline_then_sync(place, make, qpipe_in):
    make.pipeline(place)
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--offline", "--json")
    assert said.code == 0, said.err
    assert (said.json["mlflow_run_id"], said.json["promoted"]) == (None, [])
    assert any("qpipe sync" in warning for warning in said.json["warnings"])
    mlflow = MlflowClient(f"sqlite:///{place}/mlflow.db")
    assert mlflow.search_model_versions() == []
    synced = qpipe_in(place, "sync", "last", "--json")
    assert synced.code == 0, synced.err
    assert synced.json["promoted"][0]["version"] == "1"
    assert synced.json["warnings"] == []
    assert mlflow.get_run(synced.json["mlflow_run_id"]).info.status == "FINISHED"
    assert alias(place, "small-cpu-local") == "1"
    assert gates(synced.json) == gates(said.json)
    nothing = qpipe_in(place, "sync", "last")
    assert nothing.code == 2
    assert "nothing left to log" in nothing.err
    again = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    assert again.json["mlflow_run_id"] == synced.json["mlflow_run_id"]
    assert len(mlflow.search_model_versions()) == 1


def test_what_failed_is_not_registered_unless_forced_on_the_record(place, make, qpipe_in):
    make.pipeline(place, gates={"quality": {"margin": 0.05}, "size": {"at_most_ratio": 0.01}})
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    assert said.code == 3
    assert said.cell("int8/cpu-local")["verdict"] == "FAIL"
    assert said.json["promoted"] == []
    mlflow = MlflowClient(f"sqlite:///{place}/mlflow.db")
    assert mlflow.search_registered_models() == []
    assert mlflow.get_run(said.json["mlflow_run_id"]).info.status == "FINISHED"
    refused = qpipe_in(place, "promote", "last")
    assert refused.code == 5
    assert "has passed its gates" in refused.err
    named = qpipe_in(place, "promote", "last", "--cell", "small/int8/cpu-local")
    assert named.code == 5
    assert "size" in named.err
    assert qpipe_in(place, "promote", "last", "--force").code == 2
    assert mlflow.search_registered_models() == []
    forced = qpipe_in(
        place, "promote", "last", "--cell", "small/int8/cpu-local", "--force", "--reason", "a demo", "--json"
    )
    assert forced.code == 0, forced.err
    assert "a demo" in forced.json["promoted"][0]["note"]
    (move,) = qpipe_in(place, "history", "small-cpu-local", "--json").json["moves"]
    assert (move["forced"], move["reason"]) == (True, "a demo")


def test_too_few_rows_are_inconclusive(place, make, qpipe_in):
    data = {
        "label": "label",
        "calibration": {"npz": "calibration.npz"},
        "gate": {"npz": "gate.npz", "samples": 40},
    }
    make.pipeline(place, data=data)
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    assert said.code == 4
    quality = said.cell("int8/cpu-local")["gates"]["quality"]
    assert quality["verdict"] == "INCONCLUSIVE"
    assert "rows" in quality["advice"]
    assert MlflowClient(f"sqlite:///{place}/mlflow.db").search_registered_models() == []
    assert qpipe_in(place, "promote", "last").code == 5


def test_mlflow_lost_in_mid_run_costs_the_log_and_not_the_results(place, make, qpipe_in, monkeypatch):
    """The database is destroyed when the cells are done: exit 5, results kept; `qpipe sync` logs and promotes later."""
    database = place / "mlflow.db"
    whole = database.read_bytes()
    make.pipeline(place)

    def judge(*given, **named):
        database.write_bytes(b"this was a database")
        return judged(*given, **named)

    judged = conduct._judged
    with monkeypatch.context() as patch:
        patch.setattr(conduct, "_judged", judge)
        said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    assert said.code == 5
    assert said.json["exit_code"] == 5
    assert said.cell("int8/cpu-local")["verdict"] == "PASS"
    assert said.json["promoted"] == []
    assert any("qpipe sync" in warning for warning in said.json["warnings"])
    assert qpipe_in(place, "sync", "last", "--json").code in (2, 5)  # MLflow is still lost
    database.write_bytes(whole)
    synced = qpipe_in(place, "sync", "last", "--json")
    assert synced.code == 0, synced.out + synced.err
    assert synced.json["exit_code"] == 0
    assert synced.json["promoted"][0]["version"] == "1"
    assert alias(place, "small-cpu-local") == "1"
