"""Rewrites and edits that change no value, without the converter's environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import edge_models as edge
import numpy as np
import onnx
import pytest
from qpipe_litert import remote
from qpipe_litert.flatbuffer import read_flatbuffer
from qpipe_litert.flatbuffer_edit import free_batch, fuse_relu, inline_buffers
from qpipe_litert.interpreter import invoke, open_interpreter
from qpipe_litert.layout import Port, close, from_file, output_layout, permutations_of, to_file
from qpipe_litert.onnx_graph import load_float, mixed_outputs, run_reference
from qpipe_litert.onnx_rewrite import strided_slices_as_pools
from qpipe_litert.ranges import plan_ranges
from qpipe_litert.session import from_border, to_border

from qpipe.hosts.remote import Border

KNOWN = Path(remote.__file__).parent / "known_answer"


def _slice_net(axes: list[int], steps: list[int], ends: list[int] | None = None) -> onnx.ModelProto:
    graph = edge.Graph(0, 2, (8, 6))
    count = len(axes)
    parts = ([0] * count, ends or [2**63 - 1] * count, axes, steps)
    names = [graph.weight(f"s{i}", np.array(part, np.int64)) for i, part in enumerate(parts)]
    graph.op("Slice", *names)
    return graph.model("out", ("N", "c", "h", "w"))


@pytest.mark.parametrize(
    ("axes", "steps", "becomes"),
    [
        ([2, 3], [2, 2], "MaxPool"),
        ([3], [3], "MaxPool"),
        ([-2], [2], "MaxPool"),
        ([1], [2], "Slice"),
        ([2], [-1], "Slice"),
    ],
)
def test_strided_slice_becomes_a_pool_of_the_same_values(axes: list[int], steps: list[int], becomes: str) -> None:
    if steps == [-1]:
        model = _slice_net(axes, steps, ends=[-(2**63)])
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array([7], np.int64), "s0"))
    else:
        model = _slice_net(axes, steps)
    made = strided_slices_as_pools(model)
    assert made.graph.node[0].op_type == becomes
    rows = np.random.default_rng(0).normal(size=(3, 2, 8, 6)).astype(np.float32)
    np.testing.assert_array_equal(edge.run_onnx(made, rows)[0], edge.run_onnx(model, rows)[0])


def test_outputs_that_mix_rows_are_named() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,6] x) => (float[N,6] own, float[N,6] cut) {
        own = Relu(x) most = ReduceMax<axes=[0,1],keepdims=0>(own) half = Mul(most, share) cut = Clip(x,, half)
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "share"))
    rows = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    assert mixed_outputs(model, {"x": rows}, close) == ("cut",)
    assert mixed_outputs(model, {"x": rows[:1]}, close) == ()


def test_slice_that_ends_early_is_kept() -> None:
    assert strided_slices_as_pools(_slice_net([2], [2], ends=[6])).graph.node[0].op_type == "Slice"


@pytest.mark.parametrize("edit", [free_batch, inline_buffers, fuse_relu])
def test_edits_keep_the_known_answer(edit: Callable[[bytes], bytes], tmp_path: Path) -> None:
    known = np.load(KNOWN / "rows.npz")
    path = tmp_path / "edited.tflite"
    path.write_bytes(edit((KNOWN / "model.tflite").read_bytes()))
    found = invoke(open_interpreter(path), (known["inputs"],))[0]
    assert np.abs(found.astype(int) - known["outputs"].astype(int)).max() <= 1


def test_file_is_read_as_it_is() -> None:
    flat = read_flatbuffer(KNOWN / "model.tflite")
    assert [op.name for op in flat.ops][:2] == ["CONV_2D", "DEPTHWISE_CONV_2D"]
    assert flat.outside_buffers == 0
    assert not any(op.custom for op in flat.ops)
    image = flat.tensors[flat.inputs[0]]
    assert (image.dtype, image.shape, len(image.scale)) == ("int8", (1, 8, 8, 1), 1)


@pytest.mark.parametrize(
    ("shape", "wanted", "orders"),
    [
        ((None, 3, 4, 5), (1, 4, 5, 3), [(0, 2, 3, 1)]),
        ((None, 3, 4, 5), (1, 3, 4, 5), [(0, 1, 2, 3)]),
        ((None, 4, 4, 4), (1, 4, 4, 4), [(0, 1, 2, 3), (0, 2, 3, 1)]),
        ((2, 6, 20), (2, 20, 6), [(0, 2, 1)]),
        ((2, 6), (2, 7), []),
        ((2, 6), (2, 6, 1), []),
    ],
)
def test_permutations_that_shapes_allow(
    shape: tuple[int | None, ...], wanted: tuple[int, ...], orders: list[tuple[int, ...]]
) -> None:
    assert list(permutations_of(shape, wanted)) == orders


def test_layout_is_told_by_values_where_shapes_do_not_tell() -> None:
    cube = np.random.default_rng(0).normal(size=(2, 4, 4, 4)).astype(np.float32)
    found = output_layout({"y": cube}, (cube.transpose(0, 2, 3, 1),))
    assert found == (Port(name="y", position=0, permutation=(0, 2, 3, 1)),)
    np.testing.assert_array_equal(from_file(found[0], to_file(found[0], cube)), cube)
    assert output_layout({"y": cube}, (cube + 1,)) is None
    assert not close(cube, np.full_like(cube, np.nan))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_border_rounds_and_clips_to_the_dtype(dtype: str) -> None:
    ends = np.iinfo(dtype)
    border = Border(dtype=dtype, scale=0.5, zero=3)
    found = to_border(np.array([-1e9, -0.5, 0.0, 0.3, 1e9], np.float32), border)
    assert found.tolist() == [ends.min, 2, 3, 4, ends.max]
    np.testing.assert_array_equal(from_border(found[1:4], border), np.array([-0.5, 0.0, 0.5], np.float32))


def test_integers_without_a_scale_pass_as_they_are() -> None:
    ids = np.array([[7, 30000]], np.int64)
    found = to_border(ids, Border(dtype="int32", scale=0.0, zero=0))
    assert found.dtype == np.int32
    assert found.tolist() == ids.tolist()


def test_ranges_after_relu_and_clip_are_cut_as_they_cut() -> None:
    graph = edge.Graph(0, 1, (8, 8))
    graph.conv(2, relu="")
    conv = graph.last
    relu = graph.op("Relu")
    graph.last = conv
    clip = graph.op("Clip", graph.weight("lo", np.float32(0)), graph.weight("hi", np.float32(6)))
    graph.op("Add", relu)
    model = graph.model("out", ("N", 2, 8, 8))
    plan = edge.minmax_plan(model, np.random.default_rng(0).normal(size=(8, 1, 8, 8)).astype(np.float32))
    only = [replace(spec, low=-3.0, high=9.0) for spec in plan.activations if spec.tensor == conv]
    known = plan_ranges(replace(plan, activations=tuple(only)), model)
    assert known == {conv: (-3.0, 9.0), relu: (0.0, 9.0), clip: (0.0, 6.0)}


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("(float16[N,4] x) => (float[N,4] y)", "c = Cast<to=1>(x) y = Relu(c)"),
        ("(float[N,4] x) => (float16[N,4] y)", "c = Relu(x) y = Cast<to=10>(c)"),
        ("(float[N,4] x) => (float[N,4] y)", "c = Cast<to=10>(x) r = Relu(c) y = Cast<to=1>(r)"),
    ],
)
def test_float16_is_widened_where_no_weight_has_it(head, body, tmp_path):
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {head} {{ {body} }}')
    onnx.save(model, tmp_path / "m.onnx")
    found, half = load_float(tmp_path / "m.onnx")
    assert not half
    rows = np.array([[-1, 0, 1, 70000]], np.float32)
    np.testing.assert_array_equal(run_reference(found, {"x": rows})["y"], np.maximum(rows, 0))
