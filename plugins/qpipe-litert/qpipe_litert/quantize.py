"""A float `.tflite` to a quantized one, with ranges that we give."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import BuildError, RefusedError
from qpipe.records.quantization import QuantPlan
from qpipe_litert.flatbuffer import FlatModel, read_flatbuffer
from qpipe_litert.interpreter import quiet
from qpipe_litert.operators import DYNAMIC
from qpipe_litert.options import Kernels, Options
from qpipe_litert.ranges import CarriedRanges, Range

if TYPE_CHECKING:
    from ai_edge_quantizer.recipe_manager import RecipeManager

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftInFloat:
    """One `.tflite` operator that is not to be quantized, and why; `output` is its first output's name."""

    output: str
    op: str
    reason: str
    dynamic: bool = False
    """Only its borders stay float: weights are int8, and the kernel quantizes its input at run time."""


def quantize_static(
    source: Path,
    made: Path,
    plan: QuantPlan,
    carried: CarriedRanges,
    *,
    left: tuple[LeftInFloat, ...],
    options: Options,
) -> None:
    """INT8 (or 16×8) with the plan's ranges.

    Raises:
        BuildError: the quantizer failed, or refused (`RefusedError`).
    """
    flat = read_flatbuffer(source)
    names = {tensor.index: tensor.name for tensor in flat.tensors}
    manager = _manager()
    bits = 16 if options.activations == "int16" else 8
    manager.add_static_config(
        ".*", _every(), activation_num_bits=bits, weight_num_bits=8, weight_granularity=_granularity(plan)
    )
    if weight_bits(plan) == 4:
        for op in _ops("FULLY_CONNECTED", "CONV_2D"):
            manager.add_static_config(
                ".*", op, activation_num_bits=bits, weight_num_bits=4, weight_granularity=_granularity(plan)
            )
    for op in _ops("BATCH_MATMUL"):
        # Its kernels read one scale: given one per channel they compute zeros, without an error.
        manager.add_static_config(
            ".*", op, activation_num_bits=bits, weight_num_bits=8, weight_granularity=_per_tensor()
        )
    _leave_in_float(manager, left)
    for border, tensors in (("INPUT", flat.inputs), ("OUTPUT", flat.outputs)):
        if options.io == "float" or set(tensors) & set(carried.missing):
            _no_quantize(manager, ".*", _ops(border))
    statistics = {names[index]: _statistics(ends) for index, ends in carried.ranges.items()}
    _export(source, made, manager, statistics)


def quantize_weights(source: Path, made: Path, plan: QuantPlan, left: tuple[LeftInFloat, ...]) -> None:
    """Dynamic (activations quantized at run time) or weight-only, 8 or 4 bits.

    Raises:
        BuildError: the quantizer failed, or refused (`RefusedError`).
    """
    manager = _manager()
    add = manager.add_dynamic_config if plan.mode == "dynamic" else manager.add_weight_only_config
    add(".*", _every(), num_bits=8, granularity=_granularity(plan))
    if weight_bits(plan) == 4:
        for op in _ops("FULLY_CONNECTED", "CONV_2D"):
            add(".*", op, num_bits=4, granularity=_granularity(plan))
    for op in _ops("BATCH_MATMUL"):
        add(".*", op, num_bits=8, granularity=_per_tensor())
    _leave_in_float(manager, left)
    _export(source, made, manager, None)


def minmax_ranges(source: Path, batches: Iterable[Mapping[str, Array]]) -> dict[str, Range]:
    """True minimum and maximum of each tensor over batches in the file's layout: a cross-check of our own ranges."""
    from ai_edge_quantizer import calibrator, recipe, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe.static_wi8_ai8())
    # The default update is an exponential moving average, which clips.
    with quiet():
        made = calibrator.Calibrator(str(source), qsv_update_func=qsv_utils.min_max_update)
        made.calibrate({"serving_default": [dict(batch) for batch in batches]}, manager)
    return {
        name: (float(np.min(found["min"])), float(np.max(found["max"])))
        for name, found in made.get_model_qsvs().items()
        if "min" in found
    }


def weight_bits(plan: QuantPlan) -> int:
    """Bits of all weights of the plan.

    Raises:
        RefusedError: weights of several widths; the file's quantizer takes one.
    """
    bits = {spec.bits for spec in plan.weights} or {8}
    if len(bits) > 1 or not bits <= {4, 8}:
        raise RefusedError(
            f"weights of {sorted(bits)} bits in one model", hint="LiteRT engines take 8 or 4 bits throughout"
        )
    return bits.pop()


def ops_left_in_float(
    plan: QuantPlan,
    flat: FlatModel,
    matched: Mapping[int, tuple[str, ...]],
    carried: CarriedRanges,
    makers: Mapping[str, tuple[str, ...]],
    *,
    kernels: Kernels = "xnnpack",
) -> tuple[LeftInFloat, ...]:
    """Operators that the plan leaves in float (`makers`: ONNX nodes by tensor), or that lack a range."""
    refused = {
        choice.node: choice.reason or "the plan leaves it in float" for choice in plan.nodes if not choice.quantized
    }
    missing = set(carried.missing) if plan.mode == "static" else set()
    left: list[LeftInFloat] = []
    for op in flat.ops:
        name = flat.tensors[op.outputs[0]].name if op.outputs else ""
        lacking = sorted(missing & {*op.inputs, *op.outputs})
        made = (tensor for index in op.outputs for tensor in matched.get(index, ()))
        nodes = [node for tensor in made for node in makers.get(tensor, ()) if node in refused]
        if any(flat.tensors[index].state for index in op.outputs):
            # Behind an integer one the quantizer puts a DEQUANTIZE, and the recurrent operator finds no state to write.
            left.append(LeftInFloat(output=name, op=op.name, reason="it writes the state of a recurrent operator"))
        elif nodes:
            left.append(LeftInFloat(output=name, op=op.name, reason=f"{nodes[0]}: {refused[nodes[0]]}"))
        elif op.name == "HARD_SWISH" and plan.mode == "static" and kernels == "xnnpack":
            # With LiteRT's own int8 kernel a network took 4.6 times as long as with XNNPACK's float one.
            left.append(LeftInFloat(output=name, op=op.name, reason="XNNPACK has no integer kernel for it"))
        elif lacking:
            floats = plan.scheme.float_output_ops and op.name == "FULLY_CONNECTED" and set(lacking) <= set(op.outputs)
            tensor = flat.tensors[lacking[0]].name
            reason = f"its output {tensor} stays float" if floats else f"no range in the plan for {tensor}"
            left.append(LeftInFloat(output=name, op=op.name, reason=reason, dynamic=op.name in DYNAMIC))
    return tuple(left)


def _manager() -> RecipeManager:
    from ai_edge_quantizer import recipe_manager

    return recipe_manager.RecipeManager()


def _every() -> object:
    from ai_edge_quantizer.qtyping import TFLOperationName

    return TFLOperationName.ALL_SUPPORTED


def _ops(*names: str) -> tuple[object, ...]:
    from ai_edge_quantizer.qtyping import TFLOperationName

    return tuple(TFLOperationName(name) for name in names)


def _granularity(plan: QuantPlan) -> object:
    from ai_edge_quantizer.qtyping import QuantGranularity

    return QuantGranularity.CHANNELWISE if plan.scheme.per_channel else QuantGranularity.TENSORWISE


def _per_tensor() -> object:
    from ai_edge_quantizer.qtyping import QuantGranularity

    return QuantGranularity.TENSORWISE


def _leave_in_float(manager: RecipeManager, left: tuple[LeftInFloat, ...]) -> None:
    # One rule for all: the quantizer tries every rule on every operator, and an unrolled GRU has thousands of both.
    if left:
        _no_quantize(manager, _scope(left), (_every(),))
    for name in dict.fromkeys(op.op for op in left if op.dynamic):
        chosen = tuple(op for op in left if op.dynamic and op.op == name)
        manager.add_dynamic_config(_scope(chosen), *_ops(name), num_bits=8)


def _scope(ops: tuple[LeftInFloat, ...]) -> str:
    return f"^(?:{'|'.join(re.escape(op.output) for op in ops)})(;|$)"


def _no_quantize(manager: RecipeManager, regex: str, operations: tuple[object, ...]) -> None:
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    for operation in operations:
        manager.add_quantization_config(regex, operation, algorithm_key=AlgorithmName.NO_QUANTIZE)


def _statistics(ends: Range) -> dict[str, Array]:
    low, high = ends
    return {"min": np.array([min(low, 0.0)], np.float32), "max": np.array([max(high, 0.0)], np.float32)}


def _export(source: Path, made: Path, manager: RecipeManager, statistics: dict[str, dict[str, Array]] | None) -> None:
    from ai_edge_quantizer import quantizer

    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        with quiet():
            worker = quantizer.Quantizer(str(source))
            worker.load_quantization_recipe(manager.get_quantization_recipe())
            worker.quantize(statistics).export_model(str(made), overwrite=True)
    except (ValueError, KeyError, NotImplementedError) as problem:
        raise RefusedError(f"ai-edge-quantizer refused: {_one_line(problem)}") from problem
    except RuntimeError as problem:
        raise BuildError(f"ai-edge-quantizer failed: {_one_line(problem)}") from problem


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300]
