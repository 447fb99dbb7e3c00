import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qpipe.errors import EngineError, ModelError
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
    tracker.client.set_registered_model_alias("users-digits", "champion", "1")
    return tracker, run.info.run_id, info.model_id


@pytest.mark.parametrize(
    "form", ["models:/users-digits/1", "models:/users-digits@champion", "models:/{model_id}", "runs:/{run_id}/model"]
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
        ("runs:/{run_id}/nothing", "nothing to download", r"notes\.txt"),
        ("runs:/{run_id}/notes.txt", "not an MLflow model", "onnx"),
        ("runs:/0123/model", "no run 0123", "runs:/"),
        ("models:/users-digits", "no MLflow URI of a model", "NAME@ALIAS"),
        ("http://x/y", "no MLflow URI of a model", "NAME@ALIAS"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(onnx_model, uri, message, hint, tmp_path):
    tracker, run_id, _ = onnx_model
    with pytest.raises(ModelError, match=message) as caught:
        fetch_model(uri.format(run_id=run_id), tmp_path, tracking_uri=tracker.uri)
    assert re.search(hint, caught.value.hint)


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
