"""What it costs to quantize the nodes that another runtime leaves in float."""

from dataclasses import replace

import numpy as np
import pytest
from networks import write_network

from qpipe.measure.evaluation import sqnr_db
from qpipe.quant.check import run_float
from qpipe.quant.diagnosis.choices import may_spare, spare
from qpipe.quant.graph import open_graph
from qpipe.quant.schemes import LITERT, LITERT_INTEGER, ORT_ARM64, ORT_X86_AVX2, ORT_X86_VNNI, TENSORRT
from qpipe.quant.static import quantize_static
from qpipe.records.quantization import NodeChoice, QuantPlan


@pytest.fixture
def image(tmp_path):
    """An image of two channels through two convolutions and a dense layer, and rows of it."""
    rng = np.random.default_rng(0)
    body = (
        "[first] a = Conv<kernel_shape=[3,3]>(x, w0, b0) b = Relu(a) [second] c = Conv<kernel_shape=[3,3]>(b, w1, b1) "
        "d = Relu(c) e = Flatten(d) [head] y = Gemm(e, w2, b2)"
    )
    shapes = {"w0": (8, 2, 3, 3), "b0": (8,), "w1": (8, 8, 3, 3), "b1": (8,), "w2": (32, 5), "b2": (5,)}
    arrays = {name: (rng.standard_normal(shape) / 4).astype(np.float32) for name, shape in shapes.items()}
    path = write_network(tmp_path / "m.onnx", "(float[N,2,6,6] x) => (float[N,5] y)", body, arrays)
    rows = np.abs(rng.standard_normal((64, 2, 6, 6))).astype(np.float32)
    return path, rows


def _db(path, rows, model):
    wanted = run_float(open_graph(path), {"x": rows})[0].astype(np.float64)
    return sqnr_db(wanted, run_float(model, {"x": rows})[0].astype(np.float64))


def _quantized(path, rows, scheme):
    return quantize_static(path, lambda: iter([{"x": rows}]), scheme)


@pytest.mark.parametrize("scheme", [LITERT, LITERT_INTEGER, ORT_ARM64])
def test_the_first_convolution_of_an_image_is_all_that_tells_two_runtimes_apart(image, scheme):
    path, rows = image
    done = _quantized(path, rows, scheme)
    x86 = _db(path, rows, _quantized(path, rows, replace(ORT_X86_AVX2, weight_bits=8)).qdq)
    found = spare(done.graph, done.plan, ORT_X86_AVX2, {"x": rows[:16]})
    assert found is not None
    assert found.nodes == ("first",)
    assert _db(path, rows, found.qdq) == pytest.approx(x86, abs=0.3)
    assert _db(path, rows, done.qdq) < x86 - 1.0


def test_the_correction_of_a_spared_node_is_taken_back(image):
    """It made up for rounded weights, which are not rounded now: left there, it would be a loss of its own."""
    path, rows = image
    done = _quantized(path, rows, LITERT)
    assert "first" in done.plan.corrected
    before = _db(path, rows, done.graph)
    kept = spare(done.graph, replace(done.plan, corrected=()), ORT_X86_AVX2, {"x": rows})
    back = spare(done.graph, done.plan, ORT_X86_AVX2, {"x": rows})
    assert _db(path, rows, back.qdq) > _db(path, rows, kept.qdq)
    assert _db(path, rows, done.graph) == before  # the caller's graph stays as it was


def test_a_network_without_such_nodes_has_nothing_to_spare(image):
    path, rows = image
    kept = _quantized(path, rows, replace(LITERT, direct_channels=3))
    assert spare(kept.graph, kept.plan, ORT_X86_AVX2, {"x": rows}) is None


@pytest.mark.parametrize(
    ("scheme", "op", "may"),
    [
        (ORT_X86_AVX2, "Conv", False),
        (ORT_X86_VNNI, "Conv", True),  # its packs of pixels
        (ORT_X86_VNNI, "MatMul", False),
        (ORT_ARM64, "Gemm", False),
        (LITERT, "MatMul", True),
        (TENSORRT, "ConvTranspose", True),
    ],
)
def test_plans_that_cannot_have_such_nodes_are_told_without_the_graph(scheme, op, may):
    def plan(*, quantized):
        node = NodeChoice(node="n", op=op, quantized=quantized)
        return QuantPlan(scheme=scheme, mode="static", activations=(), weights=(), nodes=(node,))

    assert may_spare(plan(quantized=True), ORT_X86_AVX2) is may
    assert may_spare(plan(quantized=False), ORT_X86_AVX2) is False
