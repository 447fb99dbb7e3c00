"""Operators of small networks: integers from the input to the output, and the numbers of onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import edge_models as edge
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from qpipe_litert.flatbuffer import FlatModel, read_flatbuffer
from qpipe_mcu.options import read_ethos
from qpipe_mcu.tflm import TflmBackend
from qpipe_mcu.vela import compile_for_npu

from qpipe.errors import RefusedError
from qpipe.models import read_model
from qpipe.plugins.backend import Tensors
from qpipe.prepare import builtin_recipe, prepare
from qpipe.quant.schemes import LITERT_MICRO
from qpipe.records.engine import Engine, Prepared
from qpipe.records.target import Target
from qpipe.testing.progress import Silent

CORTEX = Target(name="cortex-m-tflm", backend="tflm")
U55 = Target(name="ethos-u55-128", backend="ethos-u", options={"accelerator": "ethos-u55-128"})
PHONE = """(float[N,3,12,12] x) => (float[N,6] y) {
    c = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w)
    h = HardSwish(c)
    g = GlobalAveragePool(h)
    q = Conv(g, u)
    r = Relu(q)
    e = Conv(r, u)
    s = HardSigmoid<alpha=0.16666667,beta=0.5>(e)
    m = Mul(h, s)
    d = ConvTranspose<kernel_shape=[2,2],strides=[2,2]>(m, t, b)
    l = LeakyRelu<alpha=0.1>(d)
    i = Conv(l, u)
    p = PRelu(i, slope)
    j = Conv(p, u)
    f = ReduceMean<axes=[2,3],keepdims=0>(j)
    o = Gemm(f, k)
    y = Softmax<axis=1>(o)
}"""
CAMERA = """(uint8[N,3,12,12] x) => (int64[N] y, float[N] z) {
    f = Cast<to=1>(x)
    n = Mul(f, scale)
    c = Conv<kernel_shape=[3,3]>(n, w)
    a = GlobalAveragePool(c)
    i = Flatten(a)
    o = Gemm(i, k)
    y = ArgMax<axis=1,keepdims=0>(o)
    l = Gemm(i, one)
    v = Squeeze(l, axis)
    z = Sigmoid(v)
}"""


def _ready(body: str, folder: Path, rows: np.ndarray, recipe: str = "int8") -> Prepared:
    """A network with weights, after a recipe."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {body}')
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 3, 3, 3), "u": (8, 8, 1, 1), "t": (8, 8, 2, 2), "b": (8,), "k": (8, 6), "one": (8, 1)}
    weights = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    weights |= {"slope": np.full((8, 1, 1), 0.25, np.float32), "scale": np.float32(1 / 255), "axis": np.array([1])}
    read = {name for node in model.graph.node for name in node.input}
    given = [numpy_helper.from_array(value, name) for name, value in weights.items() if name in read]
    model.graph.initializer.extend(given)
    onnx.save(model, folder / "m.onnx")

    def batches() -> Iterator[Tensors]:
        yield {"x": rows}

    source = read_model(folder / "m.onnx", name="m", origin="test")
    stages = builtin_recipe(recipe, LITERT_MICRO)
    return prepare(source, stages, LITERT_MICRO, batches, folder / "p", None, Silent())


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(32, 3, 12, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def phone(tool: None, rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("phone")
    return edge.built_engine(TflmBackend(), _ready(PHONE, folder, rows), CORTEX, folder / "e")


def _kinds(flat: FlatModel) -> list[str]:
    return [op.name for op in flat.ops]


def test_a_network_for_phones_is_on_integers_throughout(phone: Engine, rows: np.ndarray) -> None:
    flat = read_flatbuffer(phone.main_file)
    assert {flat.tensors[op.outputs[0]].dtype for op in flat.ops} == {"int8"}
    assert {"HARD_SWISH", "LEAKY_RELU", "PRELU", "TRANSPOSE_CONV", "SOFTMAX"} <= set(_kinds(flat))
    assert phone.placement is not None
    assert phone.placement.float == 0
    wanted = edge.run_onnx(phone.path.parent / "m.onnx", rows)[0]
    assert edge.sqnr_db(wanted, TflmBackend().open(phone, CORTEX).run({"x": rows})["y"]) > 25


def test_an_npu_runs_all_of_it(phone: Engine, tmp_path: Path) -> None:
    """A mean that drops its axes was turned back first, and went to the CPU; so did all that stood in float."""
    pytest.importorskip("ethosu")
    assert compile_for_npu(phone.main_file, tmp_path, read_ethos(U55)).estimate.cpu_names == ()


@pytest.mark.usefixtures("tool")
def test_pixels_go_in_and_places_come_out(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 3, 12, 12)).astype(np.uint8)
    engine = edge.built_engine(TflmBackend(), _ready(CAMERA, tmp_path, pixels), CORTEX, tmp_path / "e")
    flat = read_flatbuffer(engine.main_file)
    assert flat.tensors[flat.inputs[0]].dtype == "uint8"
    assert sorted(flat.tensors[index].dtype for index in flat.outputs) == ["int32", "int8"]
    assert not {"CAST", "DEQUANTIZE"} & set(_kinds(flat))
    found = TflmBackend().open(engine, CORTEX).run({"x": pixels})
    places, share = edge.run_onnx(tmp_path / "m.onnx", pixels)
    assert found["y"].dtype == np.int64
    assert np.mean(found["y"] == places) > 0.9
    np.testing.assert_allclose(found["z"], share, atol=0.02)


@pytest.mark.usefixtures("tool")
def test_pixels_of_a_float_engine(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 3, 12, 12)).astype(np.uint8)
    engine = edge.built_engine(TflmBackend(), _ready(CAMERA, tmp_path, pixels, "none"), CORTEX, tmp_path / "e")
    found = TflmBackend().open(engine, CORTEX).run({"x": pixels})
    places, share = edge.run_onnx(tmp_path / "m.onnx", pixels)
    np.testing.assert_array_equal(found["y"], places)
    np.testing.assert_allclose(found["z"], share, atol=1e-5)


@pytest.mark.usefixtures("tool")
def test_a_missing_operator_is_told_by_what_it_makes(tmp_path: Path, rows: np.ndarray) -> None:
    body = (
        "(float[N,3,12,12] x) => (float[N,8,10,10] y) { c = Conv<kernel_shape=[3,3]>(x, w) e = Erf(c) y = Add(e, c) }"
    )
    with pytest.raises(RefusedError, match=r"has no operator \w+, which makes \w+"):
        edge.built_engine(TflmBackend(), _ready(body, tmp_path, rows), CORTEX, tmp_path / "e")
