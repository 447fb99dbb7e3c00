"""Many graphs: each is quantized to something that loads, runs and is close, or is refused with the node's name."""

from collections import Counter
from dataclasses import replace

import onnx
import pytest
from many_graphs import CASES, CONV, IMAGE, Case, W, build, newest_opset, rows_for
from networks import run, sqnr_db

from qpipe.errors import QuantizationError
from qpipe.quant import schemes
from qpipe.quant.calibration.calibrate import batches_of
from qpipe.quant.graph import open_graph, save_graph
from qpipe.quant.rendering.cast import cast_half
from qpipe.quant.rendering.dynamic import plan_dynamic, render_dynamic
from qpipe.quant.schemes import TENSORRT, TENSORRT_FP8
from qpipe.quant.static import quantize_static
from qpipe.quant.storage.weight_only import plan_weight_only, render_weight_only

# Small graphs begin with one convolution of three channels, which x86 would leave in float.
ORT_X86_VNNI = replace(schemes.ORT_X86_VNNI, direct_channels=0)
ORT_X86_AVX2 = replace(schemes.ORT_X86_AVX2, direct_channels=0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_graph(case, tmp_path):
    model = build(case)
    onnx.save(model, tmp_path / "float.onnx")
    rows = rows_for(model)
    length = len(next(iter(rows.values())))

    def batches():
        return batches_of(rows, length)

    if case.refused:
        with pytest.raises(QuantizationError, match=case.refused):
            quantize_static(tmp_path / "float.onnx", batches, ORT_X86_VNNI)
        return
    found = quantize_static(tmp_path / "float.onnx", batches, ORT_X86_VNNI)
    save_graph(found.qdq, tmp_path / "qdq.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "qdq.onnx"))
    reference = run(tmp_path / "float.onnx", rows)
    outputs = run(tmp_path / "qdq.onnx", rows, optimized=tmp_path / "optimized.onnx")
    assert len(outputs) == len(reference)
    for old, new in zip(reference, outputs, strict=True):
        assert new.shape == old.shape
        assert sqnr_db(old, new) >= case.least_db
    kernels = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert {op: kernels[op] for op in case.kernels} == case.kernels
    if case.left:
        assert any(case.left in choice.reason for choice in found.plan.left_in_float())


def test_the_graphs_are_many_and_of_every_kind():
    assert len({case.body for case in CASES}) >= 50
    bodies = " ".join(case.body for case in CASES)
    kinds = ("Concat", "ConvTranspose", "LSTM", "GRU", "Softmax", "If(", "Loop(", "Scan", "group=8", "QuantizeLinear")
    assert all(kind in bodies for kind in kinds)


@pytest.mark.parametrize("opset", range(11, newest_opset() + 1))
def test_every_opset(opset, tmp_path):
    body = f"{CONV} r = Relu(c) g = GlobalAveragePool(r) f = Flatten(g) y = Gemm(f, k, b)"
    case = Case("any", IMAGE, body, {**W, "k": (8, 8)}, opset=opset)
    onnx.save(build(case), tmp_path / "float.onnx")
    rows = rows_for(build(case))
    found = quantize_static(tmp_path / "float.onnx", lambda: batches_of(rows, 24), ORT_X86_VNNI)
    save_graph(found.qdq, tmp_path / "qdq.onnx")
    [reference], [output] = (
        run(tmp_path / "float.onnx", rows),
        run(tmp_path / "qdq.onnx", rows, optimized=tmp_path / "o.onnx"),
    )
    assert sqnr_db(reference, output) >= 25
    kernels = Counter(node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node)
    assert (kernels["QLinearConv"], kernels["QGemm"]) == (1, 1)


@pytest.mark.parametrize("scheme", [ORT_X86_AVX2, TENSORRT], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("case", [case for case in CASES if not case.refused], ids=lambda case: case.name)
def test_other_schemes(case, scheme, tmp_path):
    model = build(case)
    onnx.save(model, tmp_path / "float.onnx")
    rows = rows_for(model)
    length = len(next(iter(rows.values())))
    found = quantize_static(tmp_path / "float.onnx", lambda: batches_of(rows, length), scheme)
    save_graph(found.qdq, tmp_path / "qdq.onnx")
    for old, new in zip(run(tmp_path / "float.onnx", rows), run(tmp_path / "qdq.onnx", rows), strict=True):
        assert sqnr_db(old, new) >= case.least_db - 3


HALF_ONLY_SMALL = {"lstm", "gru", "bidirectional-lstm", "loop", "if", "two-subgraphs"}
"""Recurrent kernels and subgraphs stay float32 between casts."""


@pytest.mark.parametrize("case", [case for case in CASES if not case.refused], ids=lambda case: case.name)
def test_float16(case, tmp_path):
    onnx.save(build(case), tmp_path / "float.onnx")
    rows = rows_for(build(case))
    save_graph(cast_half(open_graph(tmp_path / "float.onnx"), "float16"), tmp_path / "half.onnx")
    for old, new in zip(run(tmp_path / "float.onnx", rows), run(tmp_path / "half.onnx", rows), strict=True):
        assert new.dtype == old.dtype
        assert sqnr_db(old, new) >= 45
    stored = {
        tensor.data_type for tensor in onnx.load(tmp_path / "half.onnx").graph.initializer if len(tensor.dims) > 1
    }
    assert case.name in HALF_ONLY_SMALL or onnx.TensorProto.FLOAT not in stored


MATMULS = [
    case
    for case in CASES
    if not case.refused and ("MatMul" in case.body or "Gemm" in case.body) and case.name != "matmul-batched-weights"
]


def test_batched_weights_have_no_dynamic_kernel(tmp_path):
    case = next(case for case in CASES if case.name == "matmul-batched-weights")
    onnx.save(build(case), tmp_path / "float.onnx")
    with pytest.raises(QuantizationError, match="no node of this graph"):
        plan_dynamic(open_graph(tmp_path / "float.onnx"), ORT_X86_VNNI)


def test_a_graph_without_weights_is_not_sent_from_recipe_to_recipe(tmp_path):
    """A forest of trees was: int8 advised dynamic, and dynamic int8."""
    case = next(case for case in CASES if case.name == "no-weights")
    model = build(case)
    onnx.save(model, tmp_path / "float.onnx")
    with pytest.raises(QuantizationError) as static:
        quantize_static(tmp_path / "float.onnx", lambda: batches_of(rows_for(model), 24), ORT_X86_VNNI)
    with pytest.raises(QuantizationError) as dynamic:
        plan_dynamic(open_graph(tmp_path / "float.onnx"), ORT_X86_VNNI)
    assert static.value.hint == "keep the float model, or try recipe 'dynamic' where it has LSTM"
    assert dynamic.value.hint == "those that do: MatMul, Gemm, LSTM with constant weights; keep the float model"


@pytest.mark.parametrize("case", MATMULS, ids=lambda case: case.name)
def test_dynamic_and_weight_only(case, tmp_path):
    onnx.save(build(case), tmp_path / "float.onnx")
    model = open_graph(tmp_path / "float.onnx")
    rows = rows_for(build(case))
    reference = run(tmp_path / "float.onnx", rows)
    plan = plan_dynamic(model, ORT_X86_VNNI)
    save_graph(render_dynamic(model, plan), tmp_path / "dynamic.onnx")
    save_graph(render_weight_only(model, plan_weight_only(model, ORT_X86_VNNI, bits=8)), tmp_path / "w8.onnx")
    save_graph(render_weight_only(model, plan_weight_only(model, ORT_X86_VNNI, bits=4)), tmp_path / "w4.onnx")
    save_graph(render_weight_only(model, plan_weight_only(model, ORT_X86_VNNI, code="nf4")), tmp_path / "nf4.onnx")
    for name, least_db in (("dynamic", 25), ("w8", 35), ("w4", 12), ("nf4", 12)):
        onnx.checker.check_model(tmp_path / f"{name}.onnx")  # onnxruntime takes a graph that imports no domain
        for old, new in zip(reference, run(tmp_path / f"{name}.onnx", rows), strict=True):
            assert sqnr_db(old, new) >= least_db, name


WIDE = replace(ORT_X86_VNNI, activation="uint16")


@pytest.mark.parametrize("scheme", [WIDE, TENSORRT_FP8], ids=lambda scheme: scheme.activation)
@pytest.mark.parametrize("name", ["conv", "gemm", "transformer"])
def test_other_activation_types_raise_the_opset(name, scheme, tmp_path):
    case = next(case for case in CASES if case.name == name)
    onnx.save(build(case), tmp_path / "float.onnx")
    rows = rows_for(build(case))
    found = quantize_static(tmp_path / "float.onnx", lambda: batches_of(rows, 24), scheme)
    save_graph(found.qdq, tmp_path / "qdq.onnx")
    proto = onnx.load(tmp_path / "qdq.onnx")
    onnx.checker.check_model(proto)
    assert proto.opset_import[0].version >= (21 if scheme.activation == "uint16" else 19)
    # onnxruntime would fuse float8 pairs into kernels that it does not have: run the graph as it is written
    outputs = run(tmp_path / "qdq.onnx", rows, plain=True)
    for old, new in zip(run(tmp_path / "float.onnx", rows), outputs, strict=True):
        assert sqnr_db(old, new) >= (30 if scheme.activation == "uint16" else 15)
