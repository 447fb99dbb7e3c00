"""What a scheme's own choice of nodes costs: the same plan, with the nodes in float that another scheme leaves there.

onnxruntime on x86 keeps the first convolution of an image in float, LiteRT quantizes it: that is a difference between
two targets of one recipe, and neither of them rounds worse than the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import onnx_ir as ir

from qpipe.plugins.backend import Tensors
from qpipe.quant.calibration.calibrate import calibrate
from qpipe.quant.corrections.bias import take_back
from qpipe.quant.graph import name_of
from qpipe.quant.layout import lay_out
from qpipe.quant.operators import WEIGHTED, activation_axis
from qpipe.quant.rendering.render import render
from qpipe.records.quantization import QuantPlan
from qpipe.records.scheme import Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Spared:
    """A Q/DQ graph in which fewer nodes are quantized than in the plan's own."""

    qdq: ir.Model
    nodes: tuple[str, ...]
    """Weighted nodes that the plan quantizes and this graph does not, in graph order."""


def may_spare(plan: QuantPlan, like: Scheme) -> bool:
    """Whether the other scheme may leave a weighted node in float that the plan quantizes: told without the graph."""
    ours = plan.scheme
    less = _less(ours, like)
    ops = set(ours.ops) - set(less.ops)
    if _direct(ours) != _direct(less):
        ops.add("Conv")
    if ours.activation_matmul != less.activation_matmul:
        ops.add("MatMul")
    return any(choice.quantized and choice.op in ops for choice in plan.nodes)


def spare(model: ir.Model, plan: QuantPlan, like: Scheme, rows: Tensors) -> Spared | None:
    """The plan rendered with nodes in float where the other scheme has them; None where there are none.

    Ranges, weights and arithmetic stay the plan's. `model` is the float graph with the plan's corrections; those of
    spared nodes, which made up for rounded weights, are taken back with the means of `rows`.
    """
    chosen = frozenset(choice.node for choice in plan.nodes if choice.quantized)
    scheme = _less(plan.scheme, like)
    layout = lay_out(model.graph, scheme, lambda node: "" if node.name in chosen else "not in the plan")
    gone = chosen - {choice.node for choice in layout.nodes if choice.quantized}
    nodes = tuple(node.name for node in model.graph if node.name in gone and node.op_type in WEIGHTED and node.name)
    if not nodes:
        return None
    known = {spec.tensor: spec for spec in plan.activations}
    less = replace(
        plan,
        activations=tuple(
            replace(known[pair.tensor], consumers=pair.consumers) for pair in layout.pairs if pair.tensor in known
        ),
        weights=tuple(
            replace(spec, nodes=left)
            for spec in plan.weights
            if (left := tuple(name for name in spec.nodes if name not in nodes))
        ),
        nodes=layout.nodes,
    )
    copy = model.clone()
    take_back_by_rows(copy, plan, frozenset(nodes) & frozenset(plan.corrected), rows)
    return Spared(qdq=render(copy, less), nodes=nodes)


def _less(ours: Scheme, like: Scheme) -> Scheme:
    """Our arithmetic with the other one's choice of nodes, as far as we have these at all."""
    return replace(
        ours,
        ops=_both(ours.ops, like.ops),
        elementwise_ops=_both(ours.elementwise_ops, like.elementwise_ops),
        joining_ops=_both(ours.joining_ops, like.joining_ops),
        passthrough_ops=_both(ours.passthrough_ops, like.passthrough_ops),
        float_output_ops=like.float_output_ops if ours.quantize_outputs else ours.float_output_ops,
        activation_matmul=ours.activation_matmul and like.activation_matmul,
        direct_channels=max(ours.direct_channels, like.direct_channels),
        packs=like.packs,
        packs_from=like.packs_from,
    )


def _direct(scheme: Scheme) -> tuple[int, int, int]:
    """What decides which convolutions of few channels stay in float."""
    return scheme.direct_channels, scheme.packs, scheme.packs_from


def _both(ours: Iterable[str], theirs: Iterable[str]) -> tuple[str, ...]:
    known = frozenset(theirs)
    return tuple(op for op in ours if op in known)


def take_back_by_rows(model: ir.Model, plan: QuantPlan, names: frozenset[str], rows: Tensors) -> None:
    """Undo the bias correction of some nodes with the means of these rows; in place."""
    inputs = [node.inputs[0] for node in model.graph if node.name in names]
    axes = {name_of(value): activation_axis(value) for value in inputs if value is not None}
    if axes:
        take_back(model, plan, calibrate(model, [rows], axes), names)
