import subprocess
import sys
from dataclasses import replace

import pytest
import yaml

from qpipe.config import draft_pipeline, read_pipeline
from qpipe.records.model import Model, OnnxFile
from qpipe.records.tensors import Signature, TensorSpec


def model(tmp_path, inputs, outputs, origin=None):
    file = OnnxFile(path=tmp_path / "net.onnx", digest="0" * 64, size_bytes=1_234_567)
    signature = Signature(inputs=inputs, outputs=outputs)
    return Model(name="net", file=file, origin=origin or str(file.path), opset=17, signature=signature)


IMAGE = (TensorSpec(name="input", dtype="float32", shape=("N", 3, 32, 32)),)
TEXT = tuple(TensorSpec(name=name, dtype="int64", shape=("N", "L")) for name in ("input_ids", "attention_mask"))
ODD = (TensorSpec(name="x: y", dtype="float32", shape=(1, None)),)
LOGITS = (TensorSpec(name="logits", dtype="float32", shape=("N", 10)),)
NUMBER = (TensorSpec(name="y", dtype="float32", shape=("N", 1)),)


@pytest.mark.parametrize("inputs", [IMAGE, TEXT, ODD])
@pytest.mark.parametrize("outputs", [LOGITS, NUMBER])
@pytest.mark.parametrize("origin", [None, "models:/net@champion", "runs:/a b/model"])
def test_a_draft_is_a_pipeline(tmp_path, names, inputs, outputs, origin):
    text = draft_pipeline(model(tmp_path, inputs, outputs, origin), targets=("cpu-local", "cpu-x86-vnni"))
    (tmp_path / "p.yaml").write_text(text)
    got = read_pipeline(tmp_path / "p.yaml", names)
    assert [target.name for target in got.targets] == ["cpu-local", "cpu-x86-vnni"]
    assert got.data.inputs == tuple((spec.name, spec.name) for spec in inputs)
    assert got.models[0].uri == origin
    assert got.data.trim == ("attention_mask" if inputs == TEXT else None)


def test_a_draft_shows_shapes_and_marks_what_it_guesses(tmp_path):
    text = draft_pipeline(model(tmp_path, IMAGE, LOGITS))
    assert "#   input  input: float32[N, 3, 32, 32]" in text
    assert "task: classification  # TODO" in text
    uncommented = text.replace("#  preprocess:", "  preprocess:").replace("#   ", "    ")
    uncommented = "\n".join(line for line in uncommented.splitlines() if "float32[" not in line)
    assert yaml.safe_load(uncommented)["data"]["preprocess"]["input"]["std"] == [1.0]


def test_a_small_file_need_not_shrink(tmp_path):
    large = model(tmp_path, IMAGE, LOGITS)
    small = replace(large, file=replace(large.file, size_bytes=20_000))
    assert "size: {at_most_ratio: 0.6}\n" in draft_pipeline(large)
    assert "size: {at_most_ratio: 0.6, required: false}" in draft_pipeline(small)


def spec(name, *shape, dtype="float32"):
    return TensorSpec(name=name, dtype=dtype, shape=shape)


IDS = (spec("ids", "N", "L", dtype="int64"),)


@pytest.mark.parametrize(
    ("inputs", "outputs", "lines"),
    [
        (IDS, (spec("logits", "N", 2),), ["task: classification"]),
        (IDS, (spec("last_hidden_state", "N", "L", 384),), ["task: similarity"]),
        (IDS, (spec("sentence", "N", 384),), ["task: similarity"]),
        (tuple(spec(name, "N", dtype="int64") for name in ("user", "item")), NUMBER, ["task: regression"]),
        (IMAGE, (spec("prob", "N"),), ["task: regression"]),
        (IMAGE, (spec("mask", "N", 2, 32, 32),), ['metric: {fn: "my_scores:score"}']),
        (IMAGE, (spec("embedding", "N", 64), spec("logits", "N", 2)), ["task: classification", '  output: "logits"']),
        (IMAGE, (spec("label", "N", dtype="int64"), spec("probabilities", "N", 3)), ['  output: "probabilities"']),
    ],
)
def test_a_draft_guesses_task_and_output(tmp_path, inputs, outputs, lines):
    text = draft_pipeline(model(tmp_path, inputs, outputs))
    for line in lines:
        assert f"\n{line}  # TODO" in text
    assert ("\n  output: " in text) == (len(outputs) > 1)


ROW = (spec("x", "N", 16),)
OWN = 'metric: {fn: "my_scores:score"}'


@pytest.mark.parametrize(
    ("tensors", "operator", "line"),
    [
        ((ROW, (spec("y", "N", 1),)), "Sigmoid", "task: binary-classification"),
        ((ROW, (spec("y", "N"),)), "Sigmoid", "task: binary-classification"),
        ((ROW, (spec("y", "N", 1),)), "Gemm", "task: regression"),
        ((ROW, (spec("y", "N", 5),)), "Softmax", "task: classification"),
        ((ROW, (spec("y", "N", 5),)), "Sigmoid", OWN),
        ((IMAGE, (spec("y", "N", 256),)), "LpNormalization", "task: similarity"),
        ((IMAGE, (spec("boxes", "K", 4), spec("scores", "K"), spec("labels", "K", dtype="int64"))), "Conv", OWN),
        ((IMAGE, (spec("mask", "N", 1, 32, 32),)), "Sigmoid", OWN),
        ((IMAGE, (spec("heat", "N", 32, 32, 1),)), "Sigmoid", OWN),
        ((IDS, (spec("logits", "N", "L", 30522),)), "MatMul", OWN),
        ((ROW, (spec("y"),)), "ReduceMean", OWN),
        ((ROW, (spec("label", "N", dtype="int64"),)), "ArgMax", OWN),
        ((ROW, (spec("label", "N", 1, dtype="str"),)), "", OWN),
    ],
)
def test_a_draft_knows_what_computes_the_output(tmp_path, names, tensors, operator, line):
    inputs, outputs = tensors
    made = model(tmp_path, inputs, outputs)
    text = draft_pipeline(made, operators={one.name: operator for one in outputs})
    assert f"\n{line}  # TODO" in text
    assert ("in the label's unit" in text) == ("regression" in line)
    (tmp_path / "p.yaml").write_text(text)
    assert read_pipeline(tmp_path / "p.yaml", names).data.inputs == ((inputs[0].name, inputs[0].name),)


def test_a_draft_cleans_the_name(tmp_path, names):
    odd = replace(model(tmp_path, IMAGE, LOGITS), name="my net (v2)")
    (tmp_path / "p.yaml").write_text(draft_pipeline(odd))
    assert read_pipeline(tmp_path / "p.yaml", names).name == "my-net-v2"


def test_config_imports_nothing_heavy():
    heavy = ("numpy", "onnx", "onnxruntime", "scipy", "pandas", "mlflow")
    code = f"import sys, qpipe.config; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
