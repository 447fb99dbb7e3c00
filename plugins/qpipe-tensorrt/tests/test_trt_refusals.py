"""What TensorRT cannot take is refused with one clear line, by us or by the real builder."""

from dataclasses import dataclass

import numpy as np
import pytest
from qpipe_tensorrt.builder import _refused
from qpipe_tensorrt.job import Job
from qpipe_tensorrt.journal import Journal
from qpipe_tensorrt.parsing import about_the_graph

from qpipe.errors import BuildError


def refusal(build, model, **wanted):
    with pytest.raises(BuildError) as error:
        build(model, **wanted)
    assert "\n" not in error.value.message
    assert error.value.code == 5
    return error.value


def test_a_zero_point_that_is_not_zero(build, nets):
    model = nets.with_zero_point(nets.small(), "c2_in_z", np.array(3, np.int8))
    error = refusal(build, model)
    assert error.message == "node `c2_in_Q` (QuantizeLinear) has a zero point that is not 0: TensorRT is symmetric"
    assert "recipe int8" in error.hint


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_another_integer_type(build, nets, dtype):
    """The parser alone would take uint8 as int8, with nothing but a warning."""
    model = nets.with_zero_point(nets.small(), "c2_in_z", np.array(0, dtype))
    assert f"node `c2_in_Q` (QuantizeLinear) is {np.dtype(dtype)}" in refusal(build, model).message


def test_a_pair_without_zero_point_is_uint8(build, nets):
    model = nets.small()
    for node in model.graph.node:
        if node.name in ("c2_in_Q", "c2_in_D"):
            del node.input[2]
    assert "`c2_in_Q` (QuantizeLinear) is uint8" in refusal(build, model).message


def test_an_integer_bias(build, nets):
    error = refusal(build, nets.with_integer_bias(nets.small()))
    assert "node `bias_D` (DequantizeLinear) has an int32 input" in error.message


@pytest.mark.parametrize("op", ["DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"])
def test_integers_that_are_not_pairs(build, nets, op):
    from onnx import helper

    model = nets.small()
    model.graph.node.append(helper.make_node(op, ["input"], ["nowhere"], name="odd"))
    assert f"node `odd` is a {op}" in refusal(build, model).message


@pytest.mark.parametrize(
    ("op", "domain", "reason"),
    [("NoSuchThing", "my.ops", "Plugin not found"), ("StringNormalizer", "", "not supported")],
)
def test_the_parser_names_node_operator_and_reason(build, nets, op, domain, reason):
    error = refusal(build, nets.one_node(op, domain))
    assert f"TensorRT cannot parse node `odd` ({op})" in error.message
    assert reason in error.message
    assert error.lasts


def test_an_operator_without_a_kernel(build, nets):
    error = refusal(build, nets.detection())
    assert "nms" in error.message
    assert "has no runners that implement it" in error.message
    assert error.lasts
    assert ".cpp" not in error.message
    assert "compute it after the engine" in error.hint


def test_float64_inside_the_graph_is_told(build, nets):
    """The builder takes it as float32 without a word."""
    first, last = build(nets.doubled()).notes
    assert first == "float64 inside the graph is calculated in float32"
    assert "not compared" in last  # what cannot be run here


def test_a_node_without_a_name_is_told_by_its_number(build, nets):
    """The names that the parser makes up for such nodes stand nowhere in the user's file."""
    model = nets.one_node("StringNormalizer")
    model.graph.node[0].name = ""
    assert "TensorRT cannot parse node number 0 (StringNormalizer)" in refusal(build, model).message


def test_a_float64_input(build, nets):
    """The parser alone would take it as float32."""
    model = nets.one_node("Relu")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = 11  # DOUBLE
    assert refusal(build, model).message.startswith("`input` is float64, which TensorRT has not")


def test_a_shape_that_is_an_input(build, nets):
    model = nets.one_node("Relu")
    model.graph.node[0].op_type = "Reshape"
    model.graph.node[0].input.append("wanted")
    wanted = model.graph.input.add(name="wanted")
    wanted.type.tensor_type.elem_type = 7  # INT64
    wanted.type.tensor_type.shape.dim.add(dim_value=2)
    assert "missing values for shape input tensor wanted" in refusal(build, model).message


def test_a_dynamic_shape_without_a_range(build, nets):
    error = refusal(build, nets.small(), ranges=False)
    assert "input `input` has a dynamic shape and no range" in error.message


def test_fp8_where_the_gpu_has_none(build, nets):
    error = refusal(build, nets.small("fp8"), capability="8.6")
    assert error.message == "the graph holds fp8, which compute capability 8.6 has not"
    assert "fp8" in refusal(build, nets.small("fp8"), capability="8.9", also=["8.6"]).message


def test_a_workspace_too_small(build, nets):
    error = refusal(build, nets.resnet20(), workspace_bytes=1 << 20)
    assert "workspace limit" in error.message
    assert ".cpp" not in error.message
    assert error.hint == f"raise `workspace_bytes` (now {1 << 20})"
    assert error.lasts


def test_a_float_gemm_for_turing(build, nets):
    error = refusal(build, nets.small(), capability="7.5")
    assert "FP32 GEMM is not supported" in error.message
    assert error.lasts


@pytest.mark.parametrize(
    ("code", "text", "lasts"),
    [
        ("UNSUPPORTED_NODE", "false", True),
        ("UNSUPPORTED_NODE_ATTR", "Cuda Runtime (no driver)\nAssertion failed: dilations", True),
        ("INVALID_NODE", "Assertion failed: shapes", True),
        ("INVALID_NODE", "Cuda Runtime (no driver)", False),
        ("INVALID_NODE", "Error Code 2: OutOfMemory", False),
        ("INTERNAL_ERROR", "std::bad_alloc", False),
        ("MEM_ALLOC_FAILED", "", False),
        ("MODEL_DESERIALIZE_FAILED", "cannot open weights.bin", False),
    ],
)
def test_what_the_parser_has_against_the_graph_lasts(code, text, lasts):
    """By the vendor's own codes; memory, files and drivers may be there at the next run."""
    from tensorrt_rtx import ErrorCode

    assert about_the_graph(Complaint(getattr(ErrorCode, code), text)) is lasts


@pytest.mark.parametrize(
    ("text", "limit", "ahead", "lasts"),
    [
        ("Myelin (Error during shape inference of r = reshape(x))", None, True, True),  # float16 LSTM, 1.7.1.116
        ("no tactics to implement the operation within workspace limit", 64, True, True),
        ("no tactics to implement the operation within workspace limit", 64, False, False),
        ("no tactics to implement the operation within workspace limit", None, True, False),
        ("OutOfMemory", None, True, False),
    ],
)
def test_what_the_builder_lacks_for_good_lasts(text, limit, ahead, lasts):
    """A device may have more memory free the next time; a limit of the target's own stays."""
    journal = Journal()
    journal.write("ERROR", text)
    fields = dict.fromkeys(Job._fields, "") | {
        "workspace_bytes": limit,
        "ahead_of_time": ahead,
        "capabilities": ("8.9",),
    }
    assert _refused(journal, Job(**fields)).lasts is lasts


@dataclass(frozen=True)
class Complaint:
    """An error of the parser, which cannot be made by hand."""

    kind: object
    text: str

    def code(self):
        return self.kind

    def desc(self):
        return self.text


def test_a_file_that_is_no_model(*, build, nets, prepared, target, tmp_path, progress):
    from qpipe_tensorrt.backend import TensorRT

    ready = prepared(nets.small())
    ready.graph.path.write_bytes(b"\xff" * 64)
    with pytest.raises(BuildError, match="cannot be read as ONNX"):
        TensorRT().build(ready, target(), tmp_path, progress)
