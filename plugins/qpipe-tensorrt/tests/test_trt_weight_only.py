"""Weight-only and low-float recipes of the quantizer through the real builder."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from qpipe_tensorrt.backend import TensorRT

from qpipe.models import read_model
from qpipe.prepare import builtin_recipe, prepare
from qpipe.records.recipe import Recipe, StageSpec
from qpipe.testing.progress import Silent

INPUTS = {"transformer": (5, 64), "small": (3, 16, 16)}
SOME_INT4 = Recipe(
    name="some-int4",
    stages=(
        StageSpec(name="fold"),
        StageSpec(name="calibrate"),
        StageSpec(name="quantize", params={"overrides": [{"match": "*ff*", "weights": "int4", "block_size": 32}]}),
        StageSpec(name="correct-bias"),
    ),
)


@pytest.fixture
def placement(nets, target, tmp_path, progress):
    def make(net: str, recipe: str | Recipe):
        onnx.save(getattr(nets, net)("float"), tmp_path / "float.onnx")
        model = read_model(tmp_path / "float.onnx", name=net, origin="test")
        scheme = TensorRT().scheme(target("8.9"))
        rows = {"input": np.random.default_rng(0).normal(size=(8, *INPUTS[net])).astype(np.float32)}
        for folder in ("stages", "engine"):
            (tmp_path / folder).mkdir()
        wanted = recipe if isinstance(recipe, Recipe) else builtin_recipe(recipe, scheme)
        ready = prepare(model, wanted, scheme, lambda: iter([rows]), tmp_path / "stages", None, Silent())
        return TensorRT().build(ready, target("8.9"), tmp_path / "engine", progress).placement

    return make


def test_int4_weights_of_matmuls_are_taken(*, rtx, placement):
    found = placement("transformer", "int4")
    assert found.integer == 6
    assert {node.name for node in found.left_in_float} == {"qk", "pv"}


def test_some_nodes_may_have_int4_weights_beside_int8_ones(*, rtx, placement):
    found = placement("transformer", SOME_INT4)
    assert (found.integer, found.float) == (8, 0)


@pytest.mark.parametrize(("net", "products"), [("small", 4), ("transformer", 8)])
def test_bf16_runs_in_bfloat16(*, rtx, placement, net, products):
    found = placement(net, "bf16")
    assert (found.integer, found.float) == (products, 0)
    assert any(kernel.endswith("BFloat16") for kernel, _ in found.kernels)
