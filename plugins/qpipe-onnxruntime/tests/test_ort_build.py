from __future__ import annotations

import json
import platform
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import network
from onnx import TensorProto, helper, numpy_helper
from qpipe_onnxruntime import placement as reader
from qpipe_onnxruntime.build import optimize
from qpipe_onnxruntime.options import Options
from qpipe_onnxruntime.session import load, session_options

from qpipe.errors import BuildError
from qpipe.quant.calibration.calibrate import batches_of
from qpipe.quant.graph import save_graph
from qpipe.quant.schemes import ORT_ARM64, ORT_X86_VNNI
from qpipe.quant.static import quantize_static
from qpipe.records.quantization import NodeChoice, QuantPlan
from qpipe.records.target import Target


def test_qdq_runs_as_integer_kernels_and_the_rest_is_explained(kit, build):
    graph = kit.network()
    built = build(kit.prepared(graph, kit.static(graph)))
    placement = built.placement
    assert (placement.integer, placement.float, placement.elsewhere) == (3, 1, 0)
    assert [(node.name, node.op) for node in placement.left_in_float] == [("up", "ConvTranspose")]
    assert "no integer kernel" in placement.left_in_float[0].reason
    assert dict(placement.kernels)["com.microsoft.QLinearConv"] == 2
    ran = {one.node: one.kernel for one in placement.nodes}
    assert {ran["conv1"], ran["conv2"]} == {"com.microsoft.QLinearConv"}
    assert ran["up"] == "ConvTranspose"
    assert built.files[0].name == "model.onnx"


def test_the_profiler_saw_the_same_kernels(kit, build, local):
    graph = kit.network()
    built = build(kit.prepared(graph, kit.static(graph)))
    settings = session_options(local, Options())
    settings.enable_profiling = True
    settings.profile_file_prefix = str(kit.folder / "profile")
    session = load(kit.folder / "built" / "model.onnx", settings)
    session.run(None, {"x": np.zeros((1, 3, 8, 8), np.float32)})
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = [event["args"] for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    assert {args["provider"] for args in ran} == {"CPUExecutionProvider"}
    counted = Counter(args["op_name"] for args in ran)
    expected = Counter({name.rpartition(".")[2]: count for name, count in built.placement.kernels})
    assert counted == expected


def test_a_clip_between_conv_and_quantizer_is_found(kit, build):
    graph = kit.network()
    model = onnx.load(kit.static(graph))
    conv = next(node for node in model.graph.node if node.name == "conv1")
    # A bound inside the quantizer's range: onnxruntime may not drop it.
    clip = helper.make_node("Clip", ["raw", "lo", "narrow"], [conv.output[0]], name="clip1")
    conv.output[0] = "raw"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "narrow"))
    if not any(tensor.name == "lo" for tensor in model.graph.initializer):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "lo"))
    model.graph.node.insert(list(model.graph.node).index(conv) + 1, clip)
    placement = build(kit.prepared(graph, kit.save(model, "clipped.onnx"))).placement
    assert placement.integer == 2
    reasons = {node.name: node.reason for node in placement.left_in_float}
    assert reasons["conv1"] == "Clip 'clip1' stands between it and its quantizer"


def test_sixteen_bit_activations_have_no_kernel(kit, build):
    graph = kit.network()
    placement = build(kit.prepared(graph, kit.static(graph, activation="QUInt16"))).placement
    reasons = {node.name: node.reason for node in placement.left_in_float}
    assert reasons["conv1"] == "onnxruntime has no Conv kernel for uint16 × int8"
    dense = dict(placement.kernels).get("com.microsoft.MatMulNBits", 0)  # its weights, since onnxruntime 1.32
    assert placement.integer == dense <= 1


def test_the_plans_own_reason_comes_first(kit, build):
    graph = kit.network()
    choice = NodeChoice(node="up", op="ConvTranspose", quantized=False, reason="not in the scheme")
    placement = build(kit.prepared(graph, kit.static(graph), (choice,))).placement
    assert placement.left_in_float[0].reason == "not in the scheme"


def test_the_float_model_has_nothing_to_explain(kit, build):
    placement = build(kit.prepared(kit.network())).placement
    assert (placement.integer, placement.float, placement.left_in_float, placement.notes) == (0, 4, (), ())


def test_dynamic_matmuls_are_found_under_their_new_names(kit, build):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    random = np.random.default_rng(0)
    # `MatMul` is a stem of `MatMul_1`, which multiplies two activations and stays float.
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="MatMul"),
        helper.make_node("MatMul", ["a", "a"], ["b"], name="MatMul_1"),
        helper.make_node("MatMul", ["b", "w"], ["y"], name="MatMul_2"),
    ]
    graph = helper.make_graph(
        nodes,
        "square",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 8])],
        [numpy_helper.from_array(random.normal(size=(8, 8)).astype(np.float32), "w")],
    )
    source = kit.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), "mm.onnx")
    quantize_dynamic(source, kit.folder / "dynamic.onnx", weight_type=QuantType.QInt8)
    placement = build(kit.prepared(source, kit.folder / "dynamic.onnx")).placement
    assert (placement.integer, placement.float, placement.notes) == (2, 0, ())


def test_what_dynamic_quantization_left_out_is_explained(kit, build):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source = kit.network()
    path = kit.folder / "dynamic.onnx"
    quantize_dynamic(source, path, op_types_to_quantize=["Gemm", "MatMul"], weight_type=QuantType.QInt8)
    prepared = replace(kit.prepared(source, path), plan=None)  # a stage that renders without a plan
    built = build(prepared)
    assert built.placement.integer == 1
    assert [node.name for node in built.placement.left_in_float] == ["conv1", "conv2", "up"]
    assert built.placement.left_in_float[0].reason == "no Q/DQ on its input 'x'"
    found = reader.read_placement(
        float_graph=onnx.load(source).graph,
        deployable=onnx.load(path).graph,
        optimized=onnx.load(path).graph,
        plan=QuantPlan(scheme=ORT_X86_VNNI, mode="dynamic", activations=(), weights=(), nodes=()),
        quantized=True,
        built_on="x86_64",
        target_arch="x86_64",
    )
    assert found.left_in_float[0].reason == "dynamic quantization leaves Conv in float on this target"
    assert {need.what for need in built.requires} <= {"arch", "isa_any"}


def test_float16_nodes_keep_a_trace_through_casts(kit, build):
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(kit.network()), keep_io_types=True, op_block_list=[])
    placement = build(kit.prepared(kit.save(model, "half.onnx"))).placement
    assert placement.integer + placement.float == 4
    assert placement.notes == ()
    assert len(placement.left_in_float) == placement.float


def test_float16_weights_alone_are_not_taken_for_float16_arithmetic(kit, build, monkeypatch):
    from qpipe.quant.graph import open_graph, save_graph
    from qpipe.quant.storage.stored import store_half

    monkeypatch.setattr("qpipe.quant.storage.stored.SMALLEST", 16)
    path = kit.folder / "stored.onnx"
    save_graph(store_half(open_graph(kit.network()), "float16", keep_float=("conv1",)), path)
    placement = build(kit.prepared(path)).placement
    assert (placement.integer, placement.float) == (0, 4)
    assert "weights are stored in float16 and computed in float32" in placement.notes[0]
    assert len(placement.notes) == 1
    reasons = {node.name: node.reason for node in placement.left_in_float}
    assert reasons.pop("conv1") == "its weights stay float32"
    assert all(why.startswith("its weights are stored in float16 and read as float32") for why in reasons.values())
    assert len(reasons) == 3
    assert "Cast" not in dict(placement.kernels)


@pytest.mark.parametrize("level", ["extended", "all"])
def test_fused_and_laid_out_float_nodes_are_found(kit, build, local, level):
    target = replace(local, options={"graph_optimization": level})
    placement = build(kit.prepared(kit.network()), target).placement
    assert placement.float == 4
    assert placement.notes == ()


def test_the_lowest_level_fuses_nothing(kit, build, local):
    graph = kit.network()
    placement = build(
        kit.prepared(graph, kit.static(graph)), replace(local, options={"graph_optimization": "basic"})
    ).placement
    assert placement.integer == 0


def test_a_build_for_another_architecture_says_where_placement_was_read(kit, build, local):
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    built = build(kit.prepared(kit.network()), replace(local, name="other", arch=other))
    assert f"not on the target's {other}" in built.placement.notes[0]
    assert built.requires[0].value == other


def test_external_data_travels(kit, build):
    model = onnx.load(kit.network("inner.onnx"))
    (kit.folder / "sub").mkdir()
    path = kit.folder / "sub" / "big.onnx"
    onnx.save(model, path, save_as_external_data=True, location="big.bin", size_threshold=64)
    built = build(kit.prepared(path))
    assert [str(file) for file in built.files] == ["model.onnx", "big.bin"]
    assert (kit.folder / "built" / "big.bin").stat().st_size == (kit.folder / "sub" / "big.bin").stat().st_size


def test_a_lowered_graph_too_large_for_one_file_has_its_weights_beside_it(kit, build, monkeypatch):
    monkeypatch.setattr("qpipe.quant.graph.LARGE_BYTES", 100)
    graph = kit.network()
    built = build(kit.prepared(graph, kit.static(graph)))
    assert [str(file) for file in built.files] == ["model.onnx", "model.onnx.data"]
    assert any("NHWC" in note for note in built.placement.notes)


def test_a_truncated_quantized_graph_is_refused(kit, build):
    graph = kit.network()
    qdq = kit.static(graph)
    qdq.write_bytes(qdq.read_bytes()[:-200])
    with pytest.raises(BuildError, match="not a readable ONNX file"):
        build(kit.prepared(graph, qdq))


def test_missing_external_data_is_named(kit, build):
    model = onnx.load(kit.network())
    path = kit.folder / "big.onnx"
    onnx.save(model, path, save_as_external_data=True, location="big.bin", size_threshold=64)
    (kit.folder / "big.bin").unlink()
    with pytest.raises(BuildError, match=r"external data file 'big\.bin' is missing"):
        build(kit.prepared(path))


def test_an_opset_that_the_runtime_lacks(kit, build, local):
    model = onnx.load(kit.network())
    model.opset_import[0].version = 99
    path = kit.save(model, "future.onnx")
    with pytest.raises(BuildError, match="opset 99"):
        build(kit.prepared(path))
    with pytest.raises(BuildError, match=r"(?i)opset 99") as caught:  # one that onnx knows and onnxruntime does not
        optimize(path, local)
    assert "older opset" in caught.value.hint


def test_an_unknown_operator_is_named(kit, build):
    model = onnx.load(kit.network())
    next(node for node in model.graph.node if node.name == "relu2").op_type = "Frobnicate"
    with pytest.raises(BuildError, match="Frobnicate"):
        build(kit.prepared(kit.save(model, "unknown.onnx")))


def test_a_truncated_file_is_refused(kit, build):
    whole = kit.network()
    broken = kit.folder / "broken.onnx"
    broken.write_bytes(whole.read_bytes()[:-500])
    with pytest.raises(BuildError, match=r"broken\.onnx"):
        build(kit.prepared(broken))


def test_int8_pairs_of_new_opsets_load_for_arm_on_any_machine(tmp_path):
    """onnxruntime 1.32 moves pairs past a Reshape and then refuses what it made of them where int8 is not native."""
    random = np.random.default_rng(0)
    arrays = {"w": random.standard_normal((8, 3, 3, 3)).astype(np.float32), "all": np.array([0, -1])}
    model = network("(float[N,3,8,8] x) => (float[N,M] y)", "c = Conv(x, w) y = Reshape(c, all)", arrays, 21)
    model.ir_version = 10
    onnx.save(model, tmp_path / "float.onnx")
    rows = {"x": random.standard_normal((8, 3, 8, 8)).astype(np.float32)}
    found = quantize_static(tmp_path / "float.onnx", lambda: batches_of(rows, 8), ORT_ARM64)
    save_graph(found.qdq, tmp_path / "qdq.onnx")
    phone = Target(name="phone", backend="onnxruntime", arch="aarch64")
    kernels = [node.op_type for node in optimize(tmp_path / "qdq.onnx", phone).graph.node]
    assert "QLinearConv" in kernels
