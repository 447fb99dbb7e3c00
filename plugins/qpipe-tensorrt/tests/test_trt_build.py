"""The real builder on real Q/DQ graphs."""

import gzip
import subprocess
import sys

import pytest
from onnx import TensorProto
from qpipe_tensorrt.child import randomized
from qpipe_tensorrt.layers import parse_layers

from qpipe.engines import read_engine


def fact(engine, name):
    return next(item.value for item in engine.facts if item.name == name)


@pytest.mark.parametrize(
    ("net", "products", "capability"),
    [
        ("resnet20", 22, "8.9"),
        ("depthwise", 6, "8.6"),
        ("transformer", 8, "12.0"),
    ],
)
def test_every_product_is_an_int8_kernel(build, nets, net, products, capability):
    engine = build(getattr(nets, net)(), capability=capability)
    assert engine.placement.left_in_float == ()
    assert (engine.placement.integer, engine.placement.float) == (products, 0)


@pytest.mark.parametrize(
    ("capability", "also"),
    [
        ("8.6", ["8.9", "12.0"]),
        *(pytest.param(one, [], marks=pytest.mark.slow) for one in ("8.6", "8.9", "12.0")),
    ],
)
def test_resnet50_is_int8_throughout(build, nets, capability, also):
    engine = build(nets.resnet50(), capability=capability, also=also)
    assert (engine.placement.integer, engine.placement.float) == (54, 0)
    assert fact(engine, "kernels_rounding_twice") == 0


def test_pairs_on_inputs_round_once_where_a_naive_export_rounds_twice(build, nets, small_engine):
    ours, naive = small_engine, build(nets.small("naive"))
    assert fact(ours, "kernels_rounding_twice") == 0
    assert fact(naive, "kernels_rounding_twice") == 3
    assert fact(naive, "engine_roundings") == fact(ours, "engine_roundings") + 3
    assert any("rounds 2 times: c1, c1_out_Q" in note for note in naive.placement.notes)


def test_float_is_counted_as_float(build, nets):
    engine = build(nets.small("float"))
    assert (engine.placement.integer, engine.placement.float) == (0, 4)
    assert {(node.op, node.reason) for node in engine.placement.left_in_float} == {
        ("Conv", "its inputs are float32 in the graph"),
        ("Gemm", "its inputs are float32 in the graph"),
    }


@pytest.mark.parametrize(("dtype", "kernel"), [(TensorProto.FLOAT16, "Half"), (TensorProto.BFLOAT16, "BFloat16")])
def test_low_floats_come_from_casts_in_the_graph(build, nets, dtype, kernel):
    engine = build(nets.low_float(dtype))
    assert (engine.placement.integer, engine.placement.float) == (2, 0)
    assert f"correlation {kernel}" in dict(engine.placement.kernels)


@pytest.mark.parametrize(("net", "capability"), [("small", "8.9"), ("transformer", "12.0")])
def test_fp8(build, nets, net, capability):
    engine = build(getattr(nets, net)("fp8"), capability=capability)
    assert engine.placement.float == 0
    assert any("FP8" in kernel for kernel, _ in engine.placement.kernels)


def test_int4_weights(build, nets):
    engine = build(nets.int4_weights())
    assert (engine.placement.integer, engine.placement.float) == (1, 0)


def test_what_tensorrt_leaves_in_float_is_named(build, nets):
    engine = build(nets.upsampling())
    [node] = engine.placement.left_in_float
    assert (node.name, node.op) == ("up", "ConvTranspose")
    assert "asks for Int8, TensorRT built a Float kernel" in node.reason


def test_attention_left_in_float_is_named(build, nets):
    engine = build(nets.transformer(attention=False))
    assert {node.name for node in engine.placement.left_in_float} == {"qk", "pv"}


def test_nodes_without_or_with_the_same_name_are_matched(build, nets):
    model = nets.small()
    for index, node in enumerate(model.graph.node):
        if node.op_type == "Conv":
            node.name = "" if index % 2 else "same"
    assert build(model).placement.integer == 4


def test_the_folder_has_engine_and_raw_dump(small_engine):
    engine = read_engine(small_engine.path)
    assert [file.name for file in engine.files] == ["engine.trt", "layers.txt.gz"]
    dump = gzip.decompress((engine.path / "layers.txt.gz").read_bytes()).decode()
    assert len(parse_layers(dump)) == fact(engine, "engine_layers")
    assert engine.main_file.stat().st_size == fact(engine, "engine_bytes")


def test_the_manifest_says_product_version_and_capability(build, nets, rtx):
    engine = build(nets.small(), capability="8.9", also=["12.0"])
    needs = {need.what: need.value for need in engine.requires}
    assert needs == {
        "tensorrt-product": "tensorrt-rtx",
        "tensorrt-version": rtx.__version__,
        "compute-capability": "8.9 12.0",
    }
    assert ("tensorrt_rtx", rtx.__version__) in engine.toolchain


def test_three_builds_are_the_same_bytes_and_their_spread_is_reported(build, nets):
    engine = build(nets.small(), builds=3)
    assert fact(engine, "builds") == 3
    assert fact(engine, "distinct_builds") == 1 or randomized()
    assert (fact(engine, "distinct_tactic_choices"), fact(engine, "engine_bytes_spread")) == (1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("net", ["resnet20", "transformer", "resnet50"])
@pytest.mark.parametrize("capability", ["8.6", "8.9", "12.0"])
def test_three_builds_of_each_network_are_the_same_bytes(build, nets, net, capability):
    """The threads of large networks would take other turns each time, and name their symbols in that order."""
    ask = "import sys; from qpipe_tensorrt.worker import take_turns; sys.exit(not take_turns())"
    if randomized() or subprocess.run([sys.executable, "-c", ask], check=False).returncode:
        pytest.skip("this system grants no fixed memory layout or no first-in-first-out schedule")
    assert fact(build(getattr(nets, net)(), capability=capability, builds=3), "distinct_builds") == 1


def test_profiles_per_batch(build, nets, small_engine):
    assert fact(small_engine, "optimization_profiles") == 1
    engine = build(nets.small(), profiles="per-batch")
    assert fact(engine, "optimization_profiles") == 3
    assert fact(engine, "engine_roundings") == fact(small_engine, "engine_roundings")
    assert engine.placement.integer == 4


def test_builder_flags_are_taken(build, nets):
    engine = build(
        nets.small(),
        optimization_level=1,
        tf32=False,
        sparse_weights=True,
        strict_nans=True,
        weight_streaming=True,
        workspace_bytes=1 << 30,
    )
    assert engine.placement.integer == 4
