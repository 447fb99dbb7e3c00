"""The first convolution of an image: float where the runtime reads it directly and cannot pack it."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from qpipe.quant.layout import lay_out
from qpipe.quant.schemes import LITERT, ORT_ARM64, ORT_X86_AVX2, ORT_X86_VNNI


def convolution(channels, group=1, width=None, stride=1):
    """A stem; rows of `width` pixels, or of an unknown width."""
    data = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", channels * group, 8, width]))
    weights = ir.tensor(np.ones((8 * group, channels, 3, 3), np.float32), name="w")
    value = ir.Value(name="w", const_value=weights, type=ir.TensorType(ir.DataType.FLOAT), shape=weights.shape)
    node = ir.node("Conv", [data, value], {"group": group, "strides": [stride, stride]}, name="stem")
    node.outputs[0].name, node.outputs[0].type = "y", data.type
    if width is not None:
        node.outputs[0].shape = ir.Shape(["N", 8 * group, 8 // stride, width // stride])
    return ir.Graph([data], node.outputs, nodes=[node], initializers=[value], opset_imports={"": 21})


@pytest.mark.parametrize("scheme", [ORT_X86_VNNI, ORT_X86_AVX2], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_it_stays_float_on_x86_and_says_why(scheme, channels):
    (choice,) = lay_out(convolution(channels), scheme).nodes
    assert not choice.quantized
    assert choice.reason == f"a convolution of {channels} input channels is faster in float on this target"


@pytest.mark.parametrize(
    ("scheme", "width", "stride", "quantized"),
    [
        (ORT_X86_VNNI, 64, 1, True),
        (ORT_X86_VNNI, 64, 2, True),
        (ORT_X86_VNNI, 64, 4, True),
        (ORT_X86_VNNI, 60, 1, False),
        (replace(ORT_X86_VNNI, packs_from=32), 60, 1, True),
        (ORT_X86_VNNI, 66, 1, False),
        (ORT_X86_VNNI, 96, 3, False),
        (ORT_X86_AVX2, 64, 1, False),
    ],
)
def test_it_runs_on_integers_where_its_pixels_can_be_packed(scheme, width, stride, quantized):
    (choice,) = lay_out(convolution(3, width=width, stride=stride), scheme).nodes
    assert choice.quantized == quantized


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
