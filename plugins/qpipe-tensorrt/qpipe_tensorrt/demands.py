"""What the parsed network asks of each convolution and matrix product, before any fusion."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpipe_tensorrt.api import ILayer, INetworkDefinition

_PRODUCTS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_THROUGH = ("SHUFFLE", "SLICE", "IDENTITY", "SQUEEZE", "UNSQUEEZE")
"""Layers that only move values: a demand is read through them."""
_NAMES = {"INT8": "Int8", "INT4": "Int4", "FP8": "FP8", "FP4": "FP4", "HALF": "Half", "BF16": "BFloat16"}
_NODE = re.compile(r"\[ONNX Layer: (.*?)\]$")
FLOAT = "Float"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A node, and the type that its graph asks it to calculate in."""

    node: str
    dtype: str
    """`Int8`, `FP8`, `Half`, `BFloat16`, `Int4` (weights alone), or `Float`."""
    weight_only: bool = False


def read_demands(network: INetworkDefinition) -> tuple[Demand, ...]:
    """One demand per convolution, transposed convolution and matrix product, in the network's order."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {layer.get_output(index).name: layer for layer in layers for index in range(layer.num_outputs)}
    return tuple(_demand(layer, makers) for layer in layers if layer.type.name in _PRODUCTS)


def node_of(layer: ILayer) -> str:
    """The ONNX node that a layer was made from."""
    match = _NODE.search(layer.metadata)
    return match[1] if match else layer.name


def _demand(layer: ILayer, makers: dict[str, ILayer]) -> Demand:
    data, weight = (_quantized(layer, index, makers) for index in (0, 1))
    if data is not None:
        return Demand(node=node_of(layer), dtype=data)
    if weight is not None:
        return Demand(node=node_of(layer), dtype=weight, weight_only=True)
    tensor = layer.get_input(0)
    return Demand(node=node_of(layer), dtype=_NAMES.get(tensor.dtype.name, FLOAT) if tensor is not None else FLOAT)


def _quantized(layer: ILayer, index: int, makers: dict[str, ILayer]) -> str | None:
    """The stored type behind an input that comes from a DequantizeLinear, or None."""
    tensor = layer.get_input(index) if index < layer.num_inputs else None
    maker = makers.get(tensor.name) if tensor is not None else None
    while maker is not None and maker.type.name in _THROUGH:
        tensor = maker.get_input(0)
        maker = makers.get(tensor.name) if tensor is not None else None
    if maker is None or maker.type.name != "DEQUANTIZE":
        return None
    stored = maker.get_input(0)
    return _NAMES.get(stored.dtype.name) if stored is not None else None
