"""Our quantizer's graphs through the real builder: no refusal, every product an int8 kernel."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from qpipe_tensorrt.backend import TensorRT

from qpipe.models import read_model
from qpipe.prepare import builtin_recipe, prepare
from qpipe.quant.layout import lay_out
from qpipe.testing.progress import Silent

IMAGE, TOKENS = (3, 16, 16), (5, 64)
INPUTS = {"prenorm": TOKENS, "transformer": TOKENS, "small": IMAGE, "depthwise": IMAGE, "resnet20": (3, 32, 32)}


@pytest.fixture
def quantized(nets, tmp_path):
    def make(net, target, recipe_name="int8"):
        path = tmp_path / "float.onnx"
        onnx.save(getattr(nets, net)("float"), path)
        model = read_model(path, name=net, origin="test")
        scheme = TensorRT().scheme(target)
        shape = INPUTS[net]

        def batches():
            for seed in range(2):
                yield {"input": np.random.default_rng(seed).normal(size=(8, *shape)).astype(np.float32)}

        (tmp_path / "stages").mkdir()
        recipe = builtin_recipe(recipe_name, scheme)
        return prepare(model, recipe, scheme, batches, tmp_path / "stages", None, Silent())

    return make


@pytest.mark.parametrize(
    ("net", "products", "capability", "also"),
    [
        ("resnet20", 22, "8.6", ["8.9", "12.0"]),
        *(pytest.param("resnet20", 22, one, [], marks=pytest.mark.slow) for one in ("8.6", "8.9", "12.0")),
        ("small", 4, "8.6", []),
        ("depthwise", 6, "8.9", []),
        ("transformer", 8, "12.0", []),
    ],
)
def test_every_product_is_an_int8_kernel(
    *, rtx, quantized, target, tmp_path, progress, net, products, capability, also
):
    wanted = target(capability, also=also)
    (tmp_path / "engine").mkdir()
    built = TensorRT().build(quantized(net, wanted), wanted, tmp_path / "engine", progress)
    assert built.placement.left_in_float == ()
    assert built.placement.integer == products
    assert next(fact.value for fact in built.facts if fact.name == "kernels_rounding_twice") == 0


@pytest.mark.parametrize(("product", "capability", "pairs"), [("tensorrt-rtx", "8.9", 7), ("tensorrt", "9.0", 9)])
def test_projected_skips_are_quantized_where_a_fused_kernel_reads_them(nets, target, product, capability, pairs):
    """NVIDIA's rule is for kernels that fuse Conv and Add; TensorRT for RTX adds in a kernel of its own, in float."""
    graph = ir.from_proto(nets.resnet20("float")).graph
    placed = lay_out(graph, TensorRT().scheme(target(capability, product=product)))
    adds = {pair.tensor for pair in placed.pairs if any(name.endswith("add") for name in pair.consumers)}
    assert len(adds) == pairs
    assert {"s1b0s_y", "s2b0s_y"} <= adds or product == "tensorrt-rtx"


def test_a_skip_that_no_product_reads_stays_float(*, rtx, quantized, target, tmp_path, progress):
    """The residual stream of a pre-norm transformer: its Add would round it in its own kernel, for nothing."""
    (tmp_path / "engine").mkdir()
    ready = quantized("prenorm", target())
    assert not {"stream", "a_stream"} & {spec.tensor for spec in ready.plan.activations}
    built = TensorRT().build(ready, target(), tmp_path / "engine", progress)
    assert (built.placement.integer, built.placement.float) == (4, 0)
    assert next(fact.value for fact in built.facts if fact.name == "kernels_rounding_twice") == 0


@pytest.mark.parametrize(("net", "products"), [("small", 4), ("transformer", 8)])
def test_fp16_runs_in_half(*, rtx, quantized, target, tmp_path, progress, net, products):
    (tmp_path / "engine").mkdir()
    built = TensorRT().build(quantized(net, target(), "fp16"), target(), tmp_path / "engine", progress)
    assert (built.placement.integer, built.placement.float) == (products, 0)
    assert any(kernel.endswith("Half") for kernel, _ in built.placement.kernels)


@pytest.mark.parametrize("net", ["depthwise", "transformer"])
def test_the_fp8_scheme_runs_in_fp8(*, rtx, quantized, target, tmp_path, progress, net):
    wanted = target("8.9", scheme="tensorrt-fp8")
    (tmp_path / "engine").mkdir()
    built = TensorRT().build(quantized(net, wanted), wanted, tmp_path / "engine", progress)
    assert built.placement.left_in_float == ()
    assert any(kernel.endswith("FP8") for kernel, _ in built.placement.kernels)


def build_case(cases, case, target, folder, progress):
    onnx.save(cases.build(case), folder / "float.onnx")
    model = read_model(folder / "float.onnx", name="case", origin="test")
    rows = cases.rows_for(onnx.load(folder / "float.onnx"))
    scheme = TensorRT().scheme(target)
    for name in ("stages", "engine"):
        (folder / name).mkdir()
    recipe = builtin_recipe("int8", scheme)
    ready = prepare(model, recipe, scheme, lambda: iter([rows]), folder / "stages", None, Silent())
    return TensorRT().build(ready, target, folder / "engine", progress)


@pytest.mark.parametrize("name", ["residual", "depthwise-pad-clip", "conv3d", "lstm", "if", "loop"])
def test_graphs_of_the_quantizers_own_tests(*, rtx, quantizer_cases, target, tmp_path, progress, name):
    [case] = [case for case in quantizer_cases.CASES if case.name == name]
    check_case(quantizer_cases, case, target("8.9"), tmp_path, progress)


@pytest.mark.slow
def test_all_graphs_of_the_quantizers_own_tests(*, rtx, quantizer_cases, target, tmp_path, progress):
    for case in quantizer_cases.CASES:
        if not case.refused:
            (tmp_path / case.name).mkdir()
            check_case(quantizer_cases, case, target("8.9"), tmp_path / case.name, progress)


def check_case(cases, case, target, folder, progress):
    """It builds, and only what stands as float in the Q/DQ graph runs as float."""
    placement = build_case(cases, case, target, folder, progress).placement
    assert placement.integer >= 1
    assert all(node.reason == "its inputs are float32 in the graph" for node in placement.left_in_float)
