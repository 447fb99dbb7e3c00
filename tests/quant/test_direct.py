"""The first convolution of an image: float where the runtime reads it directly, integers elsewhere."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from qpipe.quant.layout import lay_out
from qpipe.quant.schemes import LITERT, ORT_ARM64, ORT_X86_AVX2, ORT_X86_VNNI


def convolution(channels, group=1):
    data = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", channels * group, 8, 8]))
    weights = ir.tensor(np.ones((8 * group, channels, 3, 3), np.float32), name="w")
    value = ir.Value(name="w", const_value=weights, type=ir.TensorType(ir.DataType.FLOAT), shape=weights.shape)
    node = ir.node("Conv", [data, value], {"group": group}, name="stem")
    node.outputs[0].name, node.outputs[0].type = "y", data.type
    return ir.Graph([data], node.outputs, nodes=[node], initializers=[value], opset_imports={"": 21})


@pytest.mark.parametrize("scheme", [ORT_X86_VNNI, ORT_X86_AVX2], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_it_stays_float_on_x86_and_says_why(scheme, channels):
    (choice,) = lay_out(convolution(channels), scheme).nodes
    assert not choice.quantized
    assert choice.reason == f"a convolution of {channels} input channels is faster in float on this target"


@pytest.mark.parametrize(
    ("scheme", "graph"),
    [
        (ORT_X86_VNNI, convolution(4)),
        (ORT_X86_VNNI, convolution(1, group=4)),
        (ORT_ARM64, convolution(3)),
        (LITERT, convolution(3)),
        (replace(ORT_X86_VNNI, direct_channels=0), convolution(3)),
    ],
    ids=["more channels", "depthwise", "arm64", "litert", "not asked for"],
)
def test_the_others_run_on_integers(scheme, graph):
    (choice,) = lay_out(graph, scheme).nodes
    assert choice.quantized, choice.reason
