"""What the parsed network asks of each convolution and matrix product, before any fusion."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qpipe_tensorrt.job import Demand
from qpipe_tensorrt.vendor import numbered

if TYPE_CHECKING:
    from qpipe_tensorrt.api import ILayer, INetworkDefinition, ITensor, Vendor

_PRODUCTS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
_THROUGH = ("SHUFFLE", "SLICE", "IDENTITY", "SQUEEZE", "UNSQUEEZE")
"""Layers that only move values: a demand is read through them."""
_NAMES = {"INT8": "Int8", "INT4": "Int4", "FP8": "FP8", "FP4": "FP4", "HALF": "Half", "BF16": "BFloat16"}
_NODE = re.compile(r"\[ONNX Layer: (.*?)\]$")
FLOAT = "Float"


def read_demands(vendor: Vendor, network: INetworkDefinition) -> tuple[Demand, ...]:
    """One demand per convolution, transposed convolution and matrix product, in the network's order."""
    return _Reader(vendor, network).demands()


def node_of(layer: ILayer) -> str:
    """The ONNX node that a layer was made from."""
    match = _NODE.search(layer.metadata)
    return match[1] if match else layer.name


class _Reader:
    """Layers of a network, and which of them makes each tensor."""

    def __init__(self, vendor: Vendor, network: INetworkDefinition) -> None:
        self._kinds = numbered(vendor.LayerType)
        self._dtypes = numbered(vendor.DataType)
        self._layers = [network.get_layer(index) for index in range(network.num_layers)]
        self._makers = {
            layer.get_output(index).name: layer for layer in self._layers for index in range(layer.num_outputs)
        }

    def demands(self) -> tuple[Demand, ...]:
        return tuple(self._demand(layer) for layer in self._layers if self._kinds[int(layer.type)] in _PRODUCTS)

    def _demand(self, layer: ILayer) -> Demand:
        data, weight = (self._quantized(layer, index) for index in (0, 1))
        if data is not None:
            return Demand(node=node_of(layer), dtype=data)
        if weight is not None:
            return Demand(node=node_of(layer), dtype=weight, weight_only=True)
        return Demand(node=node_of(layer), dtype=self._type_of(layer.get_input(0)) or FLOAT)

    def _quantized(self, layer: ILayer, index: int) -> str | None:
        """The stored type behind an input that comes from a DequantizeLinear, or None."""
        maker = self._maker(layer.get_input(index)) if index < layer.num_inputs else None
        while maker is not None and self._kinds[int(maker.type)] in _THROUGH:
            maker = self._maker(maker.get_input(0))
        if maker is None or self._kinds[int(maker.type)] != "DEQUANTIZE":
            return None
        return self._type_of(maker.get_input(0))

    def _maker(self, tensor: ITensor | None) -> ILayer | None:
        return self._makers.get(tensor.name) if tensor is not None else None

    def _type_of(self, tensor: ITensor | None) -> str | None:
        return _NAMES.get(self._dtypes[int(tensor.dtype)]) if tensor is not None else None
