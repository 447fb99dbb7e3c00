import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qpipe.cli.guarded import run_app
from qpipe.config import read_pipeline
from qpipe.errors import EngineError, ModelError
from qpipe.flow.workplace import open_registry
from qpipe.models import read_model
from qpipe.tracking.onnxmodels import told_otherwise, whole_model
from qpipe.tracking.promotion.moves import promote
from qpipe.tracking.sources import fetch_engine, fetch_model

WEIGHTS = np.arange(4096, dtype=np.float32).reshape(64, 64)


def gemm() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 64])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _log_bare(mlflow, folder):
    onnx.save(gemm(), folder / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    mlflow.log_artifacts(str(folder), "bare")


@pytest.fixture(scope="session")
def onnx_model(database, tmp_path_factory):
    """An ONNX-flavored model as a user of MLflow logs it: by version, alias, id and run."""
    import mlflow
    import mlflow.onnx

    from qpipe.tracking.connection import connect

    tracker = connect(database, "users", folder=tmp_path_factory.mktemp("users"))
    with pytest.MonkeyPatch.context() as patch:  # `set_tracking_uri` cannot be undone: it would stay set for all tests
        patch.setenv("MLFLOW_TRACKING_URI", database)
        with mlflow.start_run(experiment_id=tracker.experiment_id) as run:
            info = mlflow.onnx.log_model(
                gemm(),
                name="model",
                registered_model_name="users-digits",
                pip_requirements=["onnx"],
                save_as_external_data=True,
            )
            mlflow.pyfunc.log_model(
                name="other", loader_module="json", registered_model_name="not-onnx", pip_requirements=["onnx"]
            )
            mlflow.log_text("hello", "notes.txt")
            _log_bare(mlflow, tmp_path_factory.mktemp("bare"))
    tracker.client.set_registered_model_alias("users-digits", "champion", "1")
    return tracker, run.info.run_id, info.model_id


@pytest.mark.parametrize(
    "form",
    [
        "models:/users-digits/1",
        "models:/users-digits@champion",
        "models:/{model_id}",
        "runs:/{run_id}/model",
        "runs:/{run_id}/model/",
        "runs:/{run_id}/model/model.onnx",
        "runs:/{run_id}/bare/net.onnx",
    ],
)
def test_every_form_gives_the_onnx_file_with_its_weights(onnx_model, form, tmp_path):
    tracker, run_id, model_id = onnx_model

    path = fetch_model(form.format(run_id=run_id, model_id=model_id), tmp_path, tracking_uri=tracker.uri)

    assert path.suffix == ".onnx"
    assert path.is_relative_to(tmp_path)
    np.testing.assert_array_equal(numpy_helper.to_array(onnx.load(path).graph.initializer[0]), WEIGHTS)


def test_what_was_fetched_is_not_fetched_again(onnx_model, tmp_path):
    tracker, _, _ = onnx_model
    first = fetch_model("models:/users-digits/1", tmp_path, tracking_uri=tracker.uri)
    stamp = first.stat().st_mtime_ns
    assert fetch_model("models:/users-digits@champion", tmp_path, tracking_uri=tracker.uri) == first
    assert first.stat().st_mtime_ns == stamp
    assert [path.name for path in tmp_path.iterdir()] == [first.parent.name]


@pytest.mark.parametrize(
    ("uri", "message", "hint"),
    [
        ("models:/users-digit/1", "no registered model 'users-digit'.*did you mean 'users-digits'", "there are: "),
        ("models:/users-digits/7", "has no version 7", "there are: 1"),
        (f"models:/users-digits/{10**19}", f"has no version {10**19}", "there are: 1"),
        ("models:/users-digits@prod", "has no alias 'prod'", r"champion \(version 1\)"),
        ("models:/m-0123", "no logged model m-0123", "Models"),
        ("models:/not-onnx/1", "not of ONNX flavor: it has python_function", "export it"),
        ("runs:/{run_id}/nothing", "there is nothing at", r"model, other, bare, notes\.txt"),
        ("runs:/{run_id}/notes.txt", "there is nothing at", "model, other, bare"),
        ("runs:/{run_id}/bare", "not an MLflow model", r"runs:/\w+/bare/net\.onnx"),
        ("runs:/{run_id}/bare/no.onnx", "there is no file no.onnx at", "model, other, bare"),
        ("runs:/0123/model", "no run 0123", "runs:/"),
        ("models:/users-digits", "names no version", "models:/users-digits@champion or .*; versions: 1"),
        ("models:/users-digits/latest", "names no version", "models:/users-digits@champion or .*; versions: 1"),
        ("http://x/y", "no MLflow URI of a model", "NAME@ALIAS"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(onnx_model, uri, message, hint, tmp_path):
    tracker, run_id, _ = onnx_model
    with pytest.raises(ModelError, match=message) as caught:
        fetch_model(uri.format(run_id=run_id), tmp_path, tracking_uri=tracker.uri)
    assert re.search(hint, caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_a_promoted_engine_comes_back_verified(tracker, make, engine, tmp_path):
    tracker.log_cell(tracker.start("run-1", "digits", {}), make.result(engine))
    promote(tracker, make.result(engine), model_name="fetched", alias="champion")

    found = fetch_engine(tracker, "models:/fetched@champion", tmp_path / "one")

    assert found.engine.digest == engine.digest
    assert found.target.name == "cpu-local"
    model = tracker.client.search_logged_models([tracker.experiment_id])[0]
    path = Path(model.artifact_location.removeprefix("file://")) / "data/package/engine/model.onnx"
    path.write_bytes(b"changed")
    with pytest.raises(EngineError):
        fetch_engine(tracker, "models:/fetched@champion", tmp_path / "two")


def test_a_model_that_is_no_engine_of_ours(onnx_model, tmp_path):
    with pytest.raises(ModelError, match="not an engine of qpipe"):
        fetch_engine(onnx_model[0], "models:/users-digits/1", tmp_path)


def logged(tracker, name, fill, *, run="", status="READY", **flavor):
    """A logged model as some tool wrote it: `fill` puts its files into a folder."""
    from mlflow.models import Model

    run = run or tracker.client.create_run(tracker.experiment_id).info.run_id
    made = tracker.client.create_logged_model(tracker.experiment_id, name=name, source_run_id=run)
    folder = Path(made.artifact_location.removeprefix("file://"))
    folder.mkdir(parents=True)
    described = Model(artifact_path=made.artifact_location, model_id=made.model_id, run_id=run)
    described.add_flavor("onnx", **flavor)
    described.save(folder / "MLmodel")
    fill(folder)
    if status != "PENDING":
        tracker.client.finalize_logged_model(made.model_id, status)
    return made.model_id, run


def _external(folder):
    onnx.save(gemm(), folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)


def _lost(folder):
    _external(folder)
    (folder / "w.bin").unlink()


def _cut(folder):
    onnx.save(gemm(), folder / "model.onnx")
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:5000])


def _parts(folder):
    (folder / "parts").mkdir()
    onnx.save(gemm(), folder / "parts" / "encoder.onnx")
    onnx.save(gemm(), folder / "parts" / "decoder.onnx")


def _unreadable(folder):
    (folder / "MLmodel").write_text("{unclosed: [")


@pytest.mark.parametrize(
    ("fill", "flavor", "message"),
    [
        (_lost, {"data": "model.onnx"}, r"^models:/m-\w+: model.onnx: external data file 'w.bin' is missing"),
        (_cut, {"data": "model.onnx"}, r"^models:/m-\w+: model.onnx is not a whole ONNX file"),
        (_external, {"data": "net.onnx"}, "names 'net.onnx', which is not there; its .onnx files: model.onnx"),
        (_external, {"data": "../net.onnx"}, "outside the model's folder"),
        (_external, {}, "names no file"),
        (_parts, {"data": "parts"}, "a folder of decoder.onnx, encoder.onnx; qpipe takes one graph"),
        (_unreadable, {"data": "model.onnx"}, "the MLmodel of models:/m-.* cannot be read"),
    ],
    ids=["data gone", "cut", "no such file", "outside", "no file named", "several graphs", "MLmodel of no YAML"],
)
def test_a_model_that_is_not_whole_is_refused_and_not_kept(tracker, tmp_path, fill, flavor, message):
    model_id, _ = logged(tracker, "net", fill, **flavor)
    with pytest.raises(ModelError, match=message):
        fetch_model(f"models:/{model_id}", tmp_path / "models", tracking_uri=tracker.uri)
    assert list((tmp_path / "models").iterdir()) == []


def test_of_a_run_that_logged_several_models_of_one_name_the_newest_counts(tracker, tmp_path):
    _, run = logged(tracker, "net", _external, data="model.onnx")
    newest, _ = logged(tracker, "net", _external, run=run, data="model.onnx")
    gone, _ = logged(tracker, "net", _external, run=run, data="model.onnx")
    tracker.client.delete_logged_model(gone)

    path = fetch_model(f"runs:/{run}/net", tmp_path, tracking_uri=tracker.uri)

    assert path == fetch_model(f"models:/{newest}", tmp_path, tracking_uri=tracker.uri)


@pytest.mark.parametrize("status", ["PENDING", "FAILED"])
def test_a_model_that_was_not_logged_to_the_end(tracker, tmp_path, status):
    model_id, run = logged(tracker, "net", _external, status=status, data="model.onnx")
    for uri in (f"models:/{model_id}", f"runs:/{run}/net"):
        with pytest.raises(ModelError, match=f"the logged model {model_id} is {status}"):
            fetch_model(uri, tmp_path, tracking_uri=tracker.uri)


@pytest.mark.parametrize("status", ["PENDING_REGISTRATION", "FAILED_REGISTRATION"])
def test_a_version_that_was_not_registered_to_the_end(tracker, onnx_model, tmp_path, status):
    version = onnx_model[0].client.get_model_version("users-digits", "1")
    from qpipe.tracking.places import _of_version

    version._status, version._status_message = status, "upload broke off"  # no client can set it
    with pytest.raises(ModelError, match=f"version 1 of users-digits is {status}: upload broke off"):
        _of_version(tracker, version)


def test_artifacts_of_a_run_can_be_exchanged(tracker, tmp_path):
    run = tracker.client.create_run(tracker.experiment_id).info.run_id
    found = []
    for size in (1, 2):
        onnx.save(gemm(), tmp_path / "net.onnx")
        if size == 2:
            model = gemm()
            model.graph.node[0].name = "renamed"
            onnx.save(model, tmp_path / "net.onnx")
        tracker.client.log_artifact(run, str(tmp_path / "net.onnx"))
        found.append(fetch_model(f"runs:/{run}/net.onnx", tmp_path / "models", tracking_uri=tracker.uri))
    assert found[0] != found[1]
    assert onnx.load(found[1]).graph.node[0].name == "renamed"


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "line"),
    [
        ("x", (-1, 64), "float32", ""),
        (None, (-1, 64), "float32", ""),
        ("image", (-1, 64), "float32", r"has input image, the graph x: float32\[N, 64\]: the graph counts"),
        ("x", (-1, 3, 8), "float32", "another shape or dtype than the graph's input x"),
        ("x", (-1, 64), "uint8", "another shape or dtype than the graph's input x"),
    ],
)
def test_a_signature_that_is_not_the_graphs(tmp_path, name, shape, dtype, line):
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    onnx.save(gemm(), tmp_path / "model.onnx")
    declared = ModelSignature(inputs=Schema([TensorSpec(np.dtype(dtype), shape, name)]))
    Model(signature=declared).save(tmp_path / "MLmodel")
    told = told_otherwise(read_model(tmp_path / "model.onnx", name="net", origin="models:/net/1"))
    assert bool(told) == bool(line)
    assert re.search(line, told)


@pytest.mark.parametrize("form", ["models:/users-digits/1", "runs:/{run_id}/model"])
def test_a_draft_is_made_of_a_model_in_mlflow(onnx_model, form, tmp_path, monkeypatch, capsys):
    tracker, run_id, _ = onnx_model
    monkeypatch.chdir(tmp_path)
    uri = form.format(run_id=run_id)
    assert run_app(["init", uri, "--out", "mine.yaml", "--tracking-uri", tracker.uri]) == 0, capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]  # looking leaves nothing else behind
    drafted = read_pipeline(tmp_path / "mine.yaml", open_registry())
    assert (drafted.name, drafted.models[0].uri) == ("users-digits" if "users" in form else "model", uri)


def test_logging_again_is_advised_only_where_files_are_missing(tmp_path):
    _lost(tmp_path)
    with pytest.raises(ModelError, match="is missing") as lost:
        whole_model(tmp_path, "model.onnx", "models:/net/1")
    assert lost.value.hint == "log the model again, with all its files"
    proto = gemm()
    proto.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None))
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=r"^models:/net/1: model.onnx: output 'y' is a sequence") as of_the_graph:
        whole_model(tmp_path, "model.onnx", "models:/net/1")
    assert "zipmap" in of_the_graph.value.hint
