"""Pairs of texts, rows without answers, functions of the user's own, several models, models from MLflow."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

PAIRS = 150


def write_text_model(folder: Path) -> None:
    """A small sentence encoder: token ids and mask int64 [N, L] → mean embedding through one MatMul, float32 [N, 8]."""
    random = np.random.default_rng(3)
    constants = {
        "table": random.normal(size=(50, 16)).astype(np.float32),
        "weight": random.normal(size=(16, 8)).astype(np.float32),
        "last": np.array([2], np.int64),
        "middle": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["words", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["column", "middle"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "weight"], ["embedding"], name="project"),
    ]
    text = [helper.make_tensor_value_info(n, TensorProto.INT64, ["N", "L"]) for n in ("input_ids", "attention_mask")]
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 8])
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "text", text, [output], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, folder / "text.onnx")


def write_pairs(folder: Path, role: str, seed: int) -> None:
    """Two rows a pair; the score is the float model's own similarity with some noise."""
    import onnxruntime

    random = np.random.default_rng(seed)
    ids = random.integers(1, 50, size=(2 * PAIRS, 12))
    mask = (np.arange(12) < random.integers(3, 12, size=(2 * PAIRS, 1))).astype(np.int64)
    session = onnxruntime.InferenceSession(str(folder / "text.onnx"), providers=["CPUExecutionProvider"])
    (vectors,) = session.run(None, {"input_ids": ids * mask, "attention_mask": mask})
    vectors = np.asarray(vectors) / np.linalg.norm(np.asarray(vectors), axis=1, keepdims=True)
    similarity = (vectors[0::2] * vectors[1::2]).sum(1) + random.normal(scale=0.1, size=PAIRS)
    np.savez(
        folder / f"{role}.npz",
        input_ids=ids * mask,
        attention_mask=mask,
        pair=np.repeat(np.arange(PAIRS) + 1000 * seed, 2),
        score=np.repeat(similarity, 2),
    )


def test_pairs_of_texts_are_judged_by_spearman_over_groups(place, make, qpipe_in):
    write_text_model(place)
    for seed, role in enumerate(("calibration", "search", "gate")):
        write_pairs(place, role, seed)
    data = {
        "label": "score",
        "trim": "attention_mask",
        "calibration": {"npz": "calibration.npz"},
        "search": {"npz": "search.npz", "group": "pair"},
        "gate": {"npz": "gate.npz", "group": "pair"},
    }
    gates = {"quality": {"metric": "spearman", "margin": 0.05}, "finite": {}, "agreement": {"at_least": 0.9}}
    make.pipeline(place, model={"path": "text.onnx"}, task="sts", data=data, recipes=["dynamic"], gates=gates)
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    assert said.code == 0, said.out + said.err
    cell = said.cell("dynamic/cpu-local")
    quality = cell["gates"]["quality"]
    assert (quality["verdict"], quality["n"]) == ("PASS", PAIRS)
    assert quality["low"] < quality["observed"] < quality["high"]
    assert spearman(place, cell) == pytest.approx(
        cell["metrics"]["engine"]["spearman"], abs=5e-3
    )  # ranges are of each batch
    assert cell["placement"]["integer"] == 1


def spearman(place: Path, cell: dict) -> float:
    """Of the engine itself, with onnxruntime and scipy alone."""
    import onnxruntime
    from scipy.stats import spearmanr

    rows = np.load(place / "gate.npz")
    file = Path(cell["engine"]["path"]) / cell["engine"]["files"][0]
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (vectors,) = session.run(None, {name: rows[name] for name in ("input_ids", "attention_mask")})
    vectors = np.asarray(vectors)
    cosine = (vectors[0::2] * vectors[1::2]).sum(1)
    cosine = cosine / np.linalg.norm(vectors[0::2], axis=1) / np.linalg.norm(vectors[1::2], axis=1)
    return float(spearmanr(cosine, rows["score"][0::2]).statistic)


def test_rows_without_answers_are_judged_by_agreement_alone(place, make, qpipe_in):
    for role in ("calibration", "gate"):
        image = np.load(place / f"{role}.npz")["image"]
        np.savez(place / f"{role}.npz", image=image)
    data = {"calibration": {"npz": "calibration.npz"}, "gate": {"npz": "gate.npz"}}
    make.pipeline(place, data=data, gates={"quality": {"margin": 0.05}, "agreement": {"at_least": 0.9}})
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    assert said.code == 0, said.out + said.err
    cell = said.cell("int8/cpu-local")
    assert cell["gates"]["quality"]["notes"] == ["agreement-only"]
    assert cell["metrics"]["engine"].get("accuracy") is None
    assert "agreement-only" in said.json["promoted"][0]["note"]


OWN = """
    import numpy as np

    def gate():
        rows = np.load({file!r})
        for start in range(0, 400, 100):
            yield {{name: rows[name][start : start + 100] for name in ("image", "label")}}

    def confidence(outputs, columns):
        '''Logit of the right class, squashed.'''
        logits = next(iter(outputs.values()))
        return 1 / (1 + np.exp(-logits[np.arange(len(logits)), columns["label"]]))

    confidence.bounds = (0.0, 1.0)

    def doubt(outputs, columns):
        return 1 - confidence(outputs, columns)

    doubt.bounds = (0.0, 1.0)
    doubt.higher_is_better = False
"""


def test_data_and_metric_of_the_users_own(place, make, qpipe_in):
    """Functions beside the pipeline; two metrics of one file are two keys; new source is a new key."""
    text = textwrap.dedent(OWN.format(file=str(place / "gate.npz")))
    (place / "own.py").write_text(text)
    data = {"label": "label", "calibration": {"npz": "calibration.npz"}, "gate": {"fn": "own:gate"}}
    own = {"task": None, "data": data, "gates": {"quality": {"margin": 0.05}}}
    make.pipeline(place, metric={"fn": "own:confidence"}, **own)
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--offline", "--json")
    assert said.code == 0, said.out + said.err
    confidence = said.cell("int8/cpu-local")
    assert 0.5 < confidence["metrics"]["engine"]["own:confidence"] < 1
    assert confidence["gates"]["quality"]["n"] == 400

    make.pipeline(place, metric={"fn": "own:doubt"}, **own)
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--offline", "--json")
    doubt = said.cell("int8/cpu-local")
    assert not doubt["cached"]
    assert doubt["engine"] == confidence["engine"]
    assert doubt["metrics"]["engine"]["own:doubt"] == pytest.approx(
        1 - confidence["metrics"]["engine"]["own:confidence"], abs=1e-6
    )
    (place / "own.py").write_text(text + "\n# another edition\n")
    line = qpipe_in(place, "plan", "small.yaml", "--json").json["cells"][1]
    assert line["changed"] == ["gate data", "metric"] or line["changed"] == ["gate data", "metric", "protocol"]


def test_two_models_in_one_pipeline(place, make, qpipe_in):
    """Each has its own float baseline and its own name in the registry."""
    proto = onnx.load(place / "small.onnx")
    proto.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(proto.graph.initializer[0]) * np.float32(1.01), "w1")
    )
    onnx.save(proto, place / "other.onnx")
    make.pipeline(place, model=None, models=[{"path": "small.onnx"}, {"path": "other.onnx", "name": "second"}])
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    assert [(one["model"], one["recipe"]) for one in said.json["cells"]] == [
        ("small", "none"),
        ("small", "int8"),
        ("second", "none"),
        ("second", "int8"),
    ]
    passed = {f"{one['model']}-cpu-local" for one in said.json["cells"] if one["verdict"] == "PASS"}
    assert {one["model"] for one in said.json["promoted"]} == passed
    assert "small-cpu-local" in passed


def test_independent_recipes_of_one_run_are_one_look(place, make, qpipe_in):
    """Declared beforehand and promoted under names of their own: neither takes from the other's error rate."""
    make.pipeline(place, recipes=["int8", "fp16"], promote={"model": "{model}-{recipe}-{target}"})
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--offline", "--json")
    alphas = [said.cell(f"{recipe}/cpu-local")["gates"]["quality"]["alpha"] for recipe in ("int8", "fp16")]
    assert alphas == [0.04, 0.04]


@pytest.fixture
def in_mlflow(place, monkeypatch) -> dict[str, str]:
    """The small network as a user of MLflow logs it: URIs of every form."""
    import mlflow
    import mlflow.onnx

    uri = f"sqlite:///{place}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("users", artifact_location=(place / "users").as_uri())
    with mlflow.start_run(experiment_id=experiment) as run:
        info = mlflow.onnx.log_model(
            onnx.load(place / "small.onnx"),
            name="model",
            registered_model_name="small",
            pip_requirements=["onnx"],
            save_as_external_data=False,
        )
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    client.set_registered_model_alias("small", "champion", "1")
    return {
        "version": "models:/small/1",
        "alias": "models:/small@champion",
        "logged": f"models:/{info.model_id}",
        "run": f"runs:/{run.info.run_id}/model",
    }


def test_models_that_come_from_mlflow(place, make, qpipe_in, in_mlflow):
    """Every form of URI is the same model: the first run works, the others find it done."""
    digests = []
    tracking = {"uri": f"sqlite:///{place}/mlflow.db", "experiment": "small"}
    (place / "elsewhere").mkdir()
    for number, uri in enumerate(in_mlflow.values()):
        make.pipeline(place, model={"uri": uri, "name": "small"}, tracking=tracking, store=str(place / ".qpipe"))
        said = qpipe_in(place / "elsewhere", "run", "../small.yaml", "--no-profile", "--json")
        assert said.code == 0, said.out + said.err
        assert said.cell("int8/cpu-local")["cached"] == (number > 0)
        digests.append(said.cell("int8/cpu-local")["engine"]["digest"])
    assert len(set(digests)) == 1
    assert list((place / "elsewhere").iterdir()) == []
    make.pipeline(place, model={"uri": "models:/smal@champion"})
    said = qpipe_in(place, "run", "small.yaml")
    assert said.code == 2
    assert "did you mean 'small'?" in said.err


def test_targets_of_the_users_own_beside_the_pipeline(place, make, qpipe_in):
    """A file of the user's in `targets/`; one that takes a core target's name is refused with both owners."""
    (place / "targets").mkdir()
    mine = {"name": "my-desk", "backend": "onnxruntime", "threads": 2, "batch_sizes": [1, 4]}
    (place / "targets" / "my-desk.yaml").write_text(yaml.safe_dump(mine))
    make.pipeline(place, targets=["my-desk"])
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    assert said.code == 0, said.out + said.err
    assert said.json["promoted"][0]["model"] == "small-my-desk"
    (place / "targets" / "wrong.yaml").write_text(yaml.safe_dump({**mine, "name": "rong"}))
    make.pipeline(place, targets=["cpu-local"])
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--offline", "--json")
    assert said.code == 0
    assert any("wrong.yaml:" in warning for warning in said.json["warnings"])
    (place / "targets" / "wrong.yaml").rename(place / "targets" / "cpu-local.yaml")
    (place / "targets" / "cpu-local.yaml").write_text(yaml.safe_dump({**mine, "name": "cpu-local"}))
    make.pipeline(place, targets=["cpu-local"])
    said = qpipe_in(place, "run", "small.yaml")
    assert said.code == 2
    assert "cpu-local" in said.err
    assert str(place / "targets") in said.err
    assert "qpipe-core" in said.err
