"""Which layers the compiled model really runs on integers: read from its runtime model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.records.engine import FloatNode, NodeKernel, Placement
from qpipe.records.quantization import QuantPlan

if TYPE_CHECKING:
    import openvino as ov

WEIGHTED = frozenset({"Convolution", "Deconvolution", "FullyConnected", "RNNSeq", "RNNCell"})
"""Layers that multiply weights; a MatMul does where one of its inputs is constant."""
WEIGHTED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})
INTEGER = frozenset({"u8", "i8"})
LOW = INTEGER | {"bf16"}
_PARTS = ("/WithoutBiases", "/Dequantization")
"""What the ONNX frontend and the CPU plugin put behind the name of a node that they take apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A node of the ONNX graph."""

    node: str
    op: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of a compiled model, as its runtime model tells it."""

    kind: str
    """Type of layer: `Convolution`, `FullyConnected`, `Reorder`."""
    precision: str
    """In which it computes: `u8`, `f32`."""
    primitive: str
    """The implementation: `brgconv_avx512_amx_I8`."""
    names: tuple[str, ...]
    """Nodes that were fused into it."""
    weighted: bool

    @property
    def kernel(self) -> str:
        """How reports name it."""
        return f"{self.kind} {self.primitive} {self.precision}"


def read_layers(compiled: ov.CompiledModel) -> tuple[Layer, ...]:
    """The layers of a compiled model in the order in which they run, without constants and borders."""
    layers = (_layer(op) for op in compiled.get_runtime_model().get_ordered_ops())
    return tuple(layer for layer in layers if layer.kind not in {"Const", "Input", "Output"})


def place(
    layers: Iterable[Layer], plan: QuantPlan | None, graph: Mapping[str, Origin], *, stored: str = ""
) -> Placement:
    """Placement of every weighted layer; a planned node without a layer counts as float.

    Without a plan, a layer in bfloat16 counts as the low precision that was asked for.

    Args:
        layers: of the compiled model.
        plan: what was meant to run on integers.
        graph: nodes of the ONNX graph by their names and those of their outputs: layers are called by either.
        stored: float type in which weights alone are stored, or empty.
    """
    layers = tuple(layers)
    low = INTEGER if plan else LOW
    found = {_origin(layer, graph): layer for layer in layers if layer.weighted}
    rest = {name: layer for name, layer in found.items() if layer.precision not in low}
    lost = _lost(plan, found) if plan else ()
    return Placement(
        integer=len(found) - len(rest),
        float=len(rest) + len(lost),
        elsewhere=0,  # a model is compiled for the CPU plugin alone
        left_in_float=(*_left(rest, plan, stored), *lost),
        kernels=tuple(Counter(layer.kernel for layer in layers).most_common()),
        nodes=tuple(NodeKernel(node=name, kernel=kernel) for name, kernel in _trace(layers, graph).items()),
    )


def _left(rest: Mapping[str, Layer], plan: QuantPlan | None, stored: str) -> tuple[FloatNode, ...]:
    """Why each of these layers stayed in float; nothing where float is what was asked for."""
    if plan is None and not stored:
        return ()
    reasons = {choice.node: choice.reason for choice in plan.left_in_float()} if plan else {}
    return tuple(
        FloatNode(
            name=name,
            op=layer.kind,
            reason=reasons.get(name)
            or f"OpenVINO computes it in {layer.precision}" + (f": {stored} is for storing weights" if stored else ""),
        )
        for name, layer in rest.items()
    )


def _lost(plan: QuantPlan, found: Collection[str]) -> tuple[FloatNode, ...]:
    return tuple(
        FloatNode(name=choice.node, op=choice.op, reason="the compiled model has no layer of this name")
        for choice in plan.nodes
        if choice.quantized and choice.op in plan.scheme.ops and choice.node not in found
    )


def _trace(layers: Iterable[Layer], graph: Mapping[str, Origin]) -> dict[str, str]:
    """The kernel of each node of the graph that a layer names."""
    return {graph[name].node: layer.kernel for layer in layers for name in map(_shorten, layer.names) if name in graph}


def _layer(op: ov.Node) -> Layer:
    kind = _info(op, "layerType")
    sources = [one.get_source_output().get_node() for one in op.inputs()[:2]]
    return Layer(
        kind=kind,
        precision=_info(op, "runtimePrecision"),
        primitive=_info(op, "primitiveType"),
        names=tuple(filter(None, _info(op, "originalLayersNames").split(","))),
        weighted=kind in WEIGHTED or (kind == "MatMul" and any(map(_constant, sources))),
    )


def _constant(op: ov.Node) -> bool:
    """Whether it is a constant, or one behind layers that change its layout or type."""
    while (sources := op.inputs()) and _info(op, "layerType") in {"Reorder", "Transpose", "Reshape", "Convert"}:
        op = sources[0].get_source_output().get_node()
    return _info(op, "layerType") == "Const"


def _info(op: ov.Node, key: str) -> str:
    return str(op.get_rt_info()[key].astype(str))


def _origin(layer: Layer, graph: Mapping[str, Origin]) -> str:
    """The ONNX node that a weighted layer came from: the one with weights, else any that was fused into it."""
    names = [_shorten(name) for name in layer.names]
    known = [graph[name] for name in names if name in graph]
    weighted = [origin.node for origin in known if origin.op in WEIGHTED_OPS]
    return next(iter((*weighted, *(origin.node for origin in known), *names)), layer.kind)


def _shorten(name: str) -> str:
    ends = [at for part in _PARTS if (at := name.find(part)) > 0]
    return name[: min(ends)] if ends else name
