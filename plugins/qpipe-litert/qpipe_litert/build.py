"""From a prepared model to a `.tflite` with the layout that a session needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from qpipe.errors import BuildError, EngineError
from qpipe.plugins.backend import Progress
from qpipe.records.codec import encode
from qpipe.records.engine import Prepared
from qpipe.records.quantization import QuantPlan
from qpipe_litert.comparing import LEAVE, compare_engine
from qpipe_litert.convert import Converted, convert
from qpipe_litert.extremes import compare_extremes
from qpipe_litert.flatbuffer import FlatModel, read_flatbuffer
from qpipe_litert.flatbuffer_edit import store_half
from qpipe_litert.hard_swish import write_out_hard_swish
from qpipe_litert.integer_kernels import run_on_integers
from qpipe_litert.interpreter import refused_by_kernel
from qpipe_litert.layout import Layout
from qpipe_litert.matching import match_tensors
from qpipe_litert.options import Options
from qpipe_litert.quantize import LeftInFloat, ops_left_in_float, quantize_static, quantize_weights
from qpipe_litert.ranges import CarriedRanges, carry_ranges
from qpipe_litert.session import LAYOUT, BorderSession, LocalEngine
from qpipe_litert.tools import create_tool

MODEL = "model.tflite"


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteFile:
    """`model.tflite` and `layout.json` in the work folder, and what is known of them."""

    path: Path
    layout: Layout
    left: tuple[LeftInFloat, ...]
    notes: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]]
    """ONNX tensors that each tensor of the file stands for, by its name; empty where nothing was quantized."""


def build_tflite(prepared: Prepared, workdir: Path, options: Options, progress: Progress) -> TfliteFile:
    """Convert, compare, quantize with the plan's ranges, and compare again.

    Raises:
        BuildError: a tool refused, or the result computes something else or cannot be run.
        UnavailableError: the converter's environment is missing and cannot be made.
    """
    tool = create_tool(progress)
    scratch = workdir / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        progress.step("convert to .tflite and compare with onnxruntime")
        converted = convert(prepared, scratch, options, tool)
        progress.step("quantize the .tflite")
        left, names, notes = _quantize(prepared, converted, workdir / MODEL, options)
        if options.kernels == "reference":
            (workdir / MODEL).write_bytes(write_out_hard_swish((workdir / MODEL).read_bytes()))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    (workdir / LAYOUT).write_text(encode(converted.layout), "utf-8")
    progress.step("compare the .tflite with onnxruntime")
    notes = (*converted.notes, *notes, _compare(prepared, converted.layout, workdir / MODEL, options))
    return TfliteFile(path=workdir / MODEL, layout=converted.layout, left=left, notes=notes, names=names)


_Quantized = tuple[tuple[LeftInFloat, ...], Mapping[str, tuple[str, ...]], tuple[str, ...]]


def _quantize(prepared: Prepared, converted: Converted, made: Path, options: Options) -> _Quantized:
    plan = prepared.plan
    if plan is None:
        if converted.half:
            made.write_bytes(store_half(converted.path.read_bytes()))
        else:
            shutil.copyfile(converted.path, made)
        return (), {}, ()
    return _quantize_plan(prepared, plan, converted, made, options)


def _quantize_plan(
    prepared: Prepared, plan: QuantPlan, converted: Converted, made: Path, options: Options
) -> _Quantized:
    flat = read_flatbuffer(converted.path)
    matched = match_tensors(prepared, converted.graph, converted.path, converted.layout)
    carried = carry_ranges(plan, converted.graph, flat, matched, whole=options.io == "int8")
    left = ops_left_in_float(plan, flat, matched, carried, makers(converted.graph, matched), kernels=options.kernels)
    if options.unranged == "float":
        left = tuple(replace(op, dynamic=False) for op in left)
    notes: tuple[str, ...] = ()
    if plan.mode == "static":
        notes = (*_float_borders(flat, carried, options), compare_extremes(prepared, converted, matched))
        quantize_static(converted.path, made, plan, carried, left=left, options=options)
        made.write_bytes(run_on_integers(made.read_bytes(), options.kernels))
    else:
        quantize_weights(converted.path, made, plan, left)
    return left, {flat.tensors[index].name: names for index, names in matched.items()}, notes


def _float_borders(flat: FlatModel, carried: CarriedRanges, options: Options) -> Iterator[str]:
    """What was to be int8 at the border of the file and is not: one missing range leaves a whole side in float."""
    for side, tensors in (("inputs", flat.inputs), ("outputs", flat.outputs)):
        lacking = [flat.tensors[index].name for index in tensors if index in carried.missing]
        if lacking and options.io == "int8":
            yield f"the file's {side} stay float32: no range in the plan for {', '.join(lacking)}"


def makers(graph: onnx.ModelProto, matched: Mapping[int, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    """Names of the nodes that make each tensor: its own, and those before it whose results the file does not have.

    These the converter fused into it: a convolution into the Relu behind it, a product into the bias.
    """
    known = {name for names in matched.values() for name in names}
    made: dict[str, tuple[str, ...]] = {}
    for node in graph.graph.node:
        fused = (one for name in node.input if name not in known for one in made.get(name, ()))
        made |= dict.fromkeys(node.output, tuple(dict.fromkeys((*fused, node.name))))
    return made


def _compare(prepared: Prepared, layout: Layout, path: Path, options: Options) -> str:
    """The engine as a session here runs it, beside the graph that it was made from."""
    try:
        engine = LocalEngine(path, threads=1, kernels=options.kernels)
        session = BorderSession(engine, layout, prepared.signature, kind="measured")
        return compare_engine(prepared, session, rows=2 if layout.any_batch else 1, runtime="LiteRT")
    except EngineError as problem:
        raise BuildError(problem.message, hint=LEAVE, lasts=refused_by_kernel(problem.message)) from problem
