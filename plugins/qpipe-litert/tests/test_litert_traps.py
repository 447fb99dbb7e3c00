"""What goes wrong silently in this toolchain, one test each."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import edge_models as edge
import numpy as np
import onnx
import pytest
from onnx import helper
from qpipe_litert import quantize
from qpipe_litert.backend import SCHEME, LiteRtBackend
from qpipe_litert.benchmark import cross_check
from qpipe_litert.build import _float_borders
from qpipe_litert.convert import Converted, UnknownOperatorError, convert, find_layout, refuse_custom
from qpipe_litert.flatbuffer import read_flatbuffer
from qpipe_litert.interpreter import invoke, open_interpreter
from qpipe_litert.layout import to_file
from qpipe_litert.matching import match_tensors
from qpipe_litert.onnx_graph import fold
from qpipe_litert.options import Options
from qpipe_litert.quantize import (
    LeftInFloat,
    _leave_in_float,
    _manager,
    minmax_ranges,
    ops_left_in_float,
    quantize_static,
)
from qpipe_litert.ranges import CarriedRanges, carry_ranges
from qpipe_litert.session import read_layout
from qpipe_litert.tools import tool_environment

from qpipe.errors import BuildError, TargetError
from qpipe.models import read_model
from qpipe.plugins.backend import CrossChecked
from qpipe.prepare import builtin_recipe, prepare
from qpipe.records.engine import Engine, Prepared
from qpipe.records.quantization import NodeChoice
from qpipe.records.recipe import Recipe
from qpipe.records.target import Target
from qpipe.testing.progress import Silent

TARGET = Target(name="x86-litert", backend="litert")


def _carried(ready: Prepared, made: Converted) -> CarriedRanges:
    assert ready.plan is not None
    matched = match_tensors(ready, made.graph, made.path, made.layout)
    return carry_ranges(ready.plan, made.graph, read_flatbuffer(made.path), matched)


def test_our_ranges_reach_every_tensor_and_equal_true_minmax(
    conv_ready: Prepared, conv_float: Converted, digits: edge.Digits
) -> None:
    """The quantizer's own default is a moving average, which clips."""
    carried = _carried(conv_ready, conv_float)
    assert carried.missing == ()
    batch = to_file(conv_float.layout.inputs[0], digits.calibration)
    # onnxruntime calibrated all rows at once; batches of one row show that minimum and maximum are not averaged here.
    truth = minmax_ranges(conv_float.path, [{"image": row[None]} for row in batch])
    names = {tensor.index: tensor.name for tensor in read_flatbuffer(conv_float.path).tensors}
    compared = [(carried.ranges[i], truth[names[i]]) for i in carried.ranges if names[i] in truth]
    assert len(compared) >= 10
    for ours, theirs in compared:
        np.testing.assert_allclose(ours, (min(theirs[0], 0), max(theirs[1], 0)), rtol=1e-4, atol=1e-4)


def test_scales_in_the_file_are_those_of_the_plan(conv_ready: Prepared, conv_float: Converted, tmp_path: Path) -> None:
    assert conv_ready.plan is not None
    carried = _carried(conv_ready, conv_float)
    quantize_static(
        conv_float.path, tmp_path / "q.tflite", conv_ready.plan, carried, left=(), options=Options(io="int8")
    )
    flat = read_flatbuffer(tmp_path / "q.tflite")
    plan = {spec.tensor: spec for spec in conv_ready.plan.activations}
    for name, ends in (("image", flat.inputs), ("logits", flat.outputs)):
        found = flat.tensors[ends[0]]
        assert found.scale[0] == pytest.approx(plan[name].scale, rel=1e-5)
        assert abs(found.zero_point[0] - plan[name].zero_point) <= 1


def test_narrow_ranges_of_the_plan_clip(conv_ready: Prepared, conv_float: Converted, tmp_path: Path) -> None:
    """Ranges really come from the plan: a plan with half the range on the logits saturates there."""
    assert conv_ready.plan is not None
    logits = next(spec for spec in conv_ready.plan.activations if spec.tensor == "logits")
    narrow = replace(logits, low=logits.low / 2, high=logits.high / 2)
    plan = replace(
        conv_ready.plan, activations=tuple(narrow if s is logits else s for s in conv_ready.plan.activations)
    )
    carried = _carried(replace(conv_ready, plan=plan), conv_float)
    quantize_static(conv_float.path, tmp_path / "q.tflite", plan, carried, left=(), options=Options())
    rows = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype(np.float32) * 3
    found = invoke(open_interpreter(tmp_path / "q.tflite"), (rows,))[0]
    step = (narrow.high - narrow.low) / 255
    assert found.max() <= narrow.high + step
    assert found.min() >= narrow.low - step
    assert found.max() > narrow.high - 2 * step


@pytest.mark.usefixtures("tool")
def test_operator_that_the_converter_does_not_know_is_refused(tmp_path: Path) -> None:
    """onnx2tf exits 0 and writes a custom operator."""
    ready = edge.prepared(edge.single_op_net("Einsum", equation="nchw->nchw"), tmp_path / "m")
    with pytest.raises(BuildError, match="LiteRT has no operator for: ONNX_EINSUM"):
        edge.built_engine(LiteRtBackend(), ready, TARGET, tmp_path / "e")
    assert list((tmp_path / "e").iterdir()) == []


def test_custom_operators_are_refused_by_name(tmp_path: Path) -> None:
    """As the converter leaves them: it exits 0, and the file fails at load."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(Path(quantize.__file__).parent / "known_answer" / "model.tflite"))
    code = model.operatorCodes[model.subgraphs[0].operators[1].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = 32  # CUSTOM
    code.customCode = b"ONNX_EINSUM"
    flatbuffer_utils.write_model(model, str(tmp_path / "custom.tflite"))
    with pytest.raises(UnknownOperatorError, match=r"LiteRT has no operator for: ONNX_EINSUM \("):
        refuse_custom(tmp_path / "custom.tflite")
    with pytest.raises((RuntimeError, ValueError), match="ONNX_EINSUM"):
        open_interpreter(tmp_path / "custom.tflite")


def test_file_that_cannot_run_is_refused(conv_ready: Prepared, conv_float: Converted, tmp_path: Path) -> None:
    """As onnx2tf once left it: a tensor that is read and that nobody writes."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(conv_float.path))
    del model.subgraphs[0].operators[0]
    flatbuffer_utils.write_model(model, str(tmp_path / "broken.tflite"))
    with pytest.raises(BuildError, match=r"the converted model .*lacks data"):
        find_layout(conv_ready, conv_float.graph, tmp_path / "broken.tflite", free=False)


@pytest.mark.usefixtures("tool")
def test_strided_slices_become_pools(tmp_path: Path) -> None:
    ready = edge.prepared(_shortcut_net(), tmp_path / "m")
    made = convert(ready, tmp_path, Options(), tool_environment())
    assert made.notes == ()
    assert "STRIDED_SLICE" not in {op.name for op in read_flatbuffer(made.path).ops}


def _shortcut_net() -> onnx.ModelProto:
    graph = edge.Graph(5, 1, (8, 8))
    first = graph.conv(4)
    graph.conv(4, stride=2, relu="")
    deep, graph.last = graph.last, first
    for axis in (2, 3):
        ends = [np.array([value], np.int64) for value in (0, 2**63 - 1, axis, 2)]
        graph.op("Slice", *(graph.weight(f"s{axis}{i}", end) for i, end in enumerate(ends)))
    graph.op("Add", deep)
    return graph.model("out", ("N", 4, 4, 4))


@pytest.mark.usefixtures("tool")
def test_wrong_outputs_are_refused(conv_ready: Prepared, conv_float: Converted) -> None:
    """A file that loads and runs, but computes something else."""
    other = onnx.ModelProto.FromString(conv_float.graph.SerializeToString())
    head = next(tensor for tensor in other.graph.initializer if tensor.name == "head_b")
    head.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(head) + np.float32(1), "head_b"))
    before = conv_float.path.read_bytes()
    with pytest.raises(BuildError, match="outputs differ from onnxruntime's"):
        find_layout(conv_ready, other, conv_float.path, free=True)
    assert conv_float.path.read_bytes() == before


@pytest.mark.usefixtures("tool")
def test_attention_layer_runs_row_by_row_or_not_at_all_but_never_wrong(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 8, 16)).astype(np.float32)
    ready = edge.prepared(edge.attention_net(), tmp_path / "m", rows)
    engine = edge.built_engine(LiteRtBackend(), ready, TARGET, tmp_path / "e")
    ops = [op.name for op in read_flatbuffer(engine.main_file).ops]
    assert (ops.count("FULLY_CONNECTED"), ops.count("BATCH_MATMUL")) == (4, 2)  # projections; QK and PV
    assert "ADD" not in ops  # the bias is in the projection
    found = LiteRtBackend().open(engine, TARGET).run({"tokens": rows})["out"]
    assert edge.sqnr_db(edge.run_onnx(ready.graph.path, rows)[0], found) > 25


@pytest.mark.parametrize(("layout", "order"), [("channels-last", (0, 2, 1)), ("as-given", (0, 1, 2))])
@pytest.mark.usefixtures("tool")
def test_rank_three_inputs_are_permuted_and_hidden(tmp_path: Path, layout: str, order: tuple[int, ...]) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 6, 20)).astype(np.float32)
    target = replace(TARGET, options={"layout": layout})
    ready = edge.prepared(edge.rank_three_net(), tmp_path / "m")
    engine = edge.built_engine(LiteRtBackend(), ready, target, tmp_path / "e")
    assert read_layout(engine.path).inputs[0].permutation == order
    found = LiteRtBackend().open(engine, target).run({"signal": rows})["out"]
    np.testing.assert_allclose(found, edge.run_onnx(ready.graph.path, rows)[0], atol=1e-4)


def test_int16_activations_are_refused_for_xnnpack() -> None:
    with pytest.raises(TargetError, match="about 40 times slower"):
        LiteRtBackend().check(replace(TARGET, options={"activations": "int16"}))
    slow = replace(TARGET, options={"activations": "int16", "kernels": "reference"})
    assert LiteRtBackend().scheme(slow).activation == "int16"


@pytest.mark.usefixtures("tool")
def test_int16_activations_run_on_reference_kernels(
    digits: edge.Digits, digits_ready: Prepared, tmp_path: Path
) -> None:
    target = replace(TARGET, options={"activations": "int16", "kernels": "reference"})
    engine = edge.built_engine(LiteRtBackend(), digits_ready, target, tmp_path / "e")
    found = LiteRtBackend().open(engine, target).run({"input": digits.gate[:100]})["logits"]
    assert edge.sqnr_db(edge.run_onnx(digits_ready.graph.path, digits.gate[:100])[0], found) > 35


@pytest.mark.usefixtures("tool")
def test_an_operator_without_an_int16_kernel_stays_float_between_int16(tmp_path: Path) -> None:
    """Elu has an int8 kernel alone: put on int16, it was a file that could not be run."""
    target = replace(TARGET, options={"activations": "int16", "kernels": "reference"})
    graph = edge.Graph(3, 1, (8, 8))
    graph.conv(4, relu="")
    graph.op("Elu")
    graph.conv(4)
    graph.head(4)
    rows = np.random.default_rng(0).normal(size=(32, 1, 8, 8)).astype(np.float32)
    engine = edge.built_engine(
        LiteRtBackend(), edge.prepared(graph.model(), tmp_path / "m", rows), target, tmp_path / "e"
    )
    assert engine.placement is not None
    assert [node.op for node in engine.placement.left_in_float] == ["ELU"]


def test_xnnpack_and_reference_kernels_differ_by_steps_only(digits_engine: Engine, digits: edge.Digits) -> None:
    step = max(t.scale[0] for t in read_flatbuffer(digits_engine.main_file).tensors if t.name == "logits" or t.scale)
    reference = replace(TARGET, options={"kernels": "reference"})
    one = LiteRtBackend().open(digits_engine, TARGET).run({"input": digits.gate})["logits"]
    other = LiteRtBackend().open(digits_engine, reference).run({"input": digits.gate})["logits"]
    assert np.abs(one - other).max() <= 3 * step


@pytest.mark.parametrize("kind", ["Gemm", "Conv"], ids=["alone", "with a Relu fused into it"])
def test_node_that_the_plan_leaves_in_float_stays_float(
    conv_ready: Prepared, digits: edge.Digits, tmp_path: Path, conv_float: Converted, kind: str
) -> None:
    assert conv_ready.plan is not None
    node = next(n.name for n in conv_float.graph.graph.node if n.op_type == kind)
    op = {"Gemm": "FULLY_CONNECTED", "Conv": "CONV_2D"}[kind]
    choice = NodeChoice(node=node, op=kind, quantized=False, reason="sensitive")
    ready = replace(conv_ready, plan=replace(conv_ready.plan, nodes=(choice,)))
    engine = edge.built_engine(LiteRtBackend(), ready, TARGET, tmp_path / "e")
    assert engine.placement is not None
    assert [(n.op, n.reason) for n in engine.placement.left_in_float] == [(op, f"{node}: sensitive")]
    found = LiteRtBackend().open(engine, TARGET).run({"image": digits.gate})["logits"]
    assert edge.sqnr_db(edge.run_onnx(ready.graph.path, digits.gate)[0], found) > 20


@pytest.mark.parametrize(
    ("recipe", "kept", "in_float"),
    [
        ("dynamic", [], {"ADD": 1}),
        ("dynamic", ["op:Conv"], {"ADD": 1, "CONV_2D": 4}),
        ("weight-only-int8", ["op:Conv"], {"ADD": 1, "CONV_2D": 4, "FULLY_CONNECTED": 1}),
    ],
)
@pytest.mark.usefixtures("tool")
def test_recipes_of_weights_quantize_every_convolution_or_none(
    conv_ready: Prepared, tmp_path: Path, recipe: str, kept: list[str], in_float: dict[str, int]
) -> None:
    """Only those without a Relu behind them followed the plan, which had none of them."""
    (stage,) = builtin_recipe(recipe, SCHEME).stages
    recipe_of = Recipe(name=recipe, stages=(replace(stage, params=stage.params | {"keep_float": kept}),))
    model = read_model(conv_ready.graph.path, name="m", origin="test")
    (tmp_path / "p").mkdir()
    ready = prepare(model, recipe_of, SCHEME, lambda: iter(()), tmp_path / "p", None, Silent())
    placement = edge.built_engine(LiteRtBackend(), ready, TARGET, tmp_path / "e").placement
    assert placement is not None
    assert Counter(node.op for node in placement.left_in_float) == in_float
    told = [node.reason for node in placement.left_in_float if node.op == "CONV_2D"]
    assert all("the recipe keeps 'op:Conv' in float" in reason for reason in told)


def test_tensor_without_a_range_is_named_and_its_neighbours_stay_float(
    conv_ready: Prepared, conv_float: Converted
) -> None:
    """Never silently: a range that is not in the plan is not invented."""
    assert conv_ready.plan is not None
    gone = ("add_3_out", "relu_4_out", "maxpool_5_out")
    plan = replace(
        conv_ready.plan,
        activations=tuple(s for s in conv_ready.plan.activations if s.tensor not in gone),
    )
    flat = read_flatbuffer(conv_float.path)
    matched = match_tensors(conv_ready, conv_float.graph, conv_float.path, conv_float.layout)
    carried = carry_ranges(plan, conv_float.graph, flat, matched)
    left = ops_left_in_float(plan, flat, matched, carried, {})
    assert carried.missing
    assert all(op.reason.startswith("no range in the plan for ") for op in left)
    assert {"ADD", "MAX_POOL_2D"} <= {op.op for op in left if not op.dynamic}
    assert {op.op for op in left if op.dynamic} == {"CONV_2D"}


def test_operators_around_a_missing_range_run_in_float_or_quantize_at_run_time(
    conv_ready: Prepared, conv_float: Converted, digits: edge.Digits, tmp_path: Path
) -> None:
    assert conv_ready.plan is not None
    gone = ("add_3_out", "relu_4_out", "maxpool_5_out")
    kept = tuple(spec for spec in conv_ready.plan.activations if spec.tensor not in gone)
    ready = replace(conv_ready, plan=replace(conv_ready.plan, activations=kept))
    engine = edge.built_engine(LiteRtBackend(), ready, TARGET, tmp_path / "e")
    assert engine.placement is not None
    assert [node.op for node in engine.placement.left_in_float] == ["ADD"]
    assert any(note.startswith("quantized at run time: CONV_2D") for note in engine.placement.notes)
    found = LiteRtBackend().open(engine, TARGET).run({"image": digits.gate})["logits"]
    assert edge.sqnr_db(edge.run_onnx(ready.graph.path, digits.gate)[0], found) > 20


def test_litert_benchmark_agrees_with_our_file(digits_engine: Engine) -> None:
    found = cross_check(digits_engine.main_file, runs=20)
    assert found.runs == 20
    assert found.median_ms >= 0
    assert found.fully_delegated


def test_what_litert_benchmark_says_stands_beside_the_profile(digits_engine: Engine) -> None:
    session = LiteRtBackend().open(digits_engine, TARGET)
    assert isinstance(session, CrossChecked)
    assert re.fullmatch(r"litert-benchmark: \S+ ms \(median of 50 runs\), fully delegated", session.cross_check())
    slow = LiteRtBackend().open(digits_engine, replace(TARGET, options={"kernels": "reference"}))
    assert isinstance(slow, CrossChecked)
    assert slow.cross_check().startswith("litert-benchmark was not run")


@pytest.mark.usefixtures("tool")
def test_free_dimension_other_than_the_batch_needs_a_size(tmp_path: Path) -> None:
    model = edge.rank_three_net()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "T"
    ready = edge.prepared(model, tmp_path / "m")
    with pytest.raises(BuildError, match="free dimension T at axis 2"):
        edge.built_engine(LiteRtBackend(), ready, TARGET, tmp_path / "e")


def test_custom_domain_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Frobnicate", ["image"], ["out"], domain="acme", name="only")
    model = edge.single_op_net("Relu")
    model.graph.node[0].CopyFrom(node)
    model.opset_import.append(helper.make_opsetid("acme", 1))
    with pytest.raises(BuildError, match="acme"):
        fold(model, tmp_path)


def test_a_border_without_a_range_stays_float(conv_ready: Prepared, conv_float: Converted, tmp_path: Path) -> None:
    """A model that scales its own input in float: the rest is int8 all the same, and the placement says so."""
    options = Options(io="int8", batch="one", unranged="float")
    flat, carried = read_flatbuffer(conv_float.path), _carried(conv_ready, conv_float)
    ranges = {index: found for index, found in carried.ranges.items() if index not in flat.inputs}
    lacking = CarriedRanges(ranges=ranges, missing=(*carried.missing, *flat.inputs))
    matched = match_tensors(conv_ready, conv_float.graph, conv_float.path, conv_float.layout)
    left = ops_left_in_float(conv_ready.plan, flat, matched, lacking, {})
    quantize_static(conv_float.path, tmp_path / "m.tflite", conv_ready.plan, lacking, left=left, options=options)
    made = read_flatbuffer(tmp_path / "m.tflite")
    assert [made.tensors[index].dtype for index in (*made.inputs, *made.outputs)] == ["float32", "int8"]
    assert list(_float_borders(flat, lacking, options)) == [
        "the file's inputs stay float32: no range in the plan for image"
    ]
    assert list(_float_borders(flat, carried, options)) == []


def test_the_quantizer_gets_one_rule_however_many_operators_stay_float() -> None:
    """It tries each rule on each operator: an unrolled GRU took more than six minutes, and takes 30 s."""
    rules = []
    for count in (1, 500):
        manager = _manager()
        _leave_in_float(manager, tuple(LeftInFloat(output=f"t{i}", op="ADD", reason="") for i in range(count)))
        rules.append(len(manager.get_quantization_recipe()))
    assert rules[0] == rules[1] > 0
