import io
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qpipe.errors import DataError, EngineError
from qpipe.records.engine import Requirement
from qpipe.records.target import Target
from qpipe.records.tensors import TensorSpec
from qpipe.tracking.flavor import as_tensors
from qpipe.tracking.promotion.moves import promote

SITE = Path(__file__).parent / "stand_in_site"
MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
IMAGE = np.array([[1, 2, 3, 4], [0.5, 0, -1, 2]], np.float32)
TARGET = Target(name="cpu-local", backend="stand-in", options={"scale": 2.0})
EXPECTED = IMAGE @ (2 * MATRIX)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.syspath_prepend(str(SITE))


def matrix_bytes() -> bytes:
    stream = io.BytesIO()
    np.save(stream, MATRIX)
    return stream.getvalue()


@pytest.fixture
def log(make, tracker, tmp_path):
    def log_engine(**changes):
        engine = make.engine(tmp_path / "matrix", content=matrix_bytes(), **changes)
        result = make.result(engine)
        logged = tracker.log_cell(tracker.start("run-1", "digits", {}), result, target=TARGET)
        return (
            result,
            logged,
            Path(tracker.client.get_logged_model(logged.model_id).artifact_location.removeprefix("file://")),
        )

    return log_engine


def load(folder):
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(folder))


@pytest.mark.parametrize(
    "data",
    [
        {"image": IMAGE},
        pd.DataFrame({"image": [row.tolist() for row in IMAGE]}),
        pd.DataFrame({"image": list(IMAGE)}),
    ],
)
def test_a_logged_engine_answers_with_its_own_numbers_and_names(log, data):
    _, _, folder = log()

    answer = load(folder).predict(data)

    assert list(answer) == ["logits"]
    np.testing.assert_array_equal(answer["logits"], EXPECTED)


def test_the_environment_is_pinned_and_nothing_is_pickled(log):
    _, _, folder = log(requires=(Requirement(what="package", value="numpy>=2.0"),))

    lines = (folder / "requirements.txt").read_text().splitlines()

    assert lines[0] == "numpy>=2.0"
    assert any(line.startswith("mlflow==") for line in lines)
    assert not list(folder.rglob("*.pkl"))


def test_a_tampered_engine_is_refused(log):
    _, _, folder = log()
    path = folder / "data/package/engine/model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(EngineError, match=r"model\.onnx: expected sha256"):
        load(folder)


def test_an_exchanged_engine_is_refused(log, make, tmp_path):
    _, _, folder = log()
    other = make.engine(tmp_path / "other", content=b"another, with a manifest that fits")
    for file in other.path.iterdir():
        (folder / "data/package/engine" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(EngineError, match="should hold the engine"):
        load(folder)


def test_a_machine_that_lacks_what_the_engine_requires_is_refused(log):
    _, _, folder = log(requires=(Requirement(what="arch", value="riscv64"),))
    with pytest.raises(EngineError, match="riscv64"):
        load(folder)


def test_inputs_that_do_not_fit_are_refused(make, tmp_path):
    specs = make.engine(tmp_path / "e").signature.inputs
    for wrong, message in (
        ({"picture": IMAGE}, "missing image"),
        ({"image": IMAGE, "x": IMAGE}, "unknown x"),
        ({"image": IMAGE[:, :3]}, r"shape \[2, 3\]"),
        ({"image": IMAGE[0]}, r"shape \[4\]"),
        ({"image": np.array([["a"] * 4])}, "image is <U1"),
    ):
        with pytest.raises(DataError, match=message):
            as_tensors(wrong, specs)


def test_arrays_and_plain_frames_serve_a_single_input(make, tmp_path):
    specs = make.engine(tmp_path / "e").signature.inputs
    for data in (IMAGE, IMAGE.astype(np.float64), pd.DataFrame(IMAGE)):
        np.testing.assert_array_equal(as_tensors(data, specs)["image"], IMAGE)
        assert as_tensors(data, specs)["image"].dtype == np.float32


def test_integers_are_cast_only_where_they_fit():
    spec = TensorSpec(name="ids", dtype="uint8", shape=(None,))
    assert as_tensors({"ids": np.array([0, 255])}, (spec,))["ids"].dtype == np.uint8
    for wrong, message in (([0, 256], "cannot hold"), ([-1, 3], "cannot hold"), ([0.5, 1.0], "is float64")):
        with pytest.raises(DataError, match=message):
            as_tensors({"ids": np.array(wrong)}, (spec,))


def test_one_array_for_two_inputs_is_refused():
    specs = tuple(TensorSpec(name=name, dtype="float32", shape=(None,)) for name in ("a", "b"))
    with pytest.raises(DataError, match="one array for an engine with 2 inputs"):
        as_tensors(np.zeros(3), specs)


def post(url: str, document: object) -> dict:
    request = urllib.request.Request(
        url, json.dumps(document).encode(), headers={"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def test_models_serve_answers_with_the_engines_numbers(log, tracker, make, tmp_path):
    result, _, _ = log()
    promote(tracker, result, model_name="served", alias="champion")
    port = make.free_port()
    command = [
        *("serve", "-m", "models:/served@champion", "--env-manager", "local", "-p", str(port), "-h", "127.0.0.1")
    ]
    environment = make.environment(MLFLOW_TRACKING_URI=tracker.uri)
    environment["PYTHONPATH"] += f":{SITE}"
    with (tmp_path / "serve.log").open("wb") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "models", *command],
            cwd=tmp_path,
            env=environment,
            stdout=log_file,
            stderr=log_file,
            start_new_session=True,
        )
    try:
        make.wait_for(f"http://127.0.0.1:{port}/ping", lambda: process.poll() is None, 150)
        answer = post(f"http://127.0.0.1:{port}/invocations", {"inputs": {"image": IMAGE.tolist()}})
    finally:
        make.stop(process.pid)
        process.wait(20)
    np.testing.assert_array_equal(np.array(answer["predictions"]["logits"], np.float32), EXPECTED)
