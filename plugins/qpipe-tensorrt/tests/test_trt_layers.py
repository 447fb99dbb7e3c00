import pytest
from qpipe_tensorrt.build import _layers
from qpipe_tensorrt.job import Demand
from qpipe_tensorrt.layers import UnreadableDumpError, parse_layers
from qpipe_tensorrt.placement import place


def line(name, kind="kgen", types="Int8", nodes="c1", out="Float"):
    tensor = "{{ Name: t, Dimensions: [-1,4], Strides: [4,1], Datatype: {0}, Format: (Linear) Row major [x] }}"
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {tensor.format(types)}], Constants: [], "
        f"Outputs: [ {tensor.format(out)}], TacticName: t, StreamId: 0, Metadata: "
        + "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes.split())
    )


def dump(*lines):
    return "Layers:\n" + "\n".join(lines) + "\n\nI/O Tensors:\n Name: input, IOMode: Input"


def test_types_nodes_and_operations():
    [layer] = parse_layers(dump(line("__myl_MulMinMaxRounCast_myl0_3", nodes="c1 a/b.c]d")))
    assert (layer.inputs, layer.outputs, layer.nodes) == (("Int8",), ("Float",), ("c1", "a/b.c]d"))
    assert layer.tactic == "t"
    assert layer.operations == ("Mul", "Min", "Max", "Roun", "Cast")
    assert (layer.roundings, layer.multiplies, layer.moves) == (1, False, False)


def test_layers_outside_the_compiler_have_other_fields():
    copied = (
        "Name: [ShapeHostToDeviceCopy 0], LayerType: ShapeHostToDevice, Inputs: [], Outputs: [ { Name: /b/G, "
        "Location: Device, Dimensions: [1], Datatype: Int64, Format: none }], ParameterType: ShapeH2D, "
        "shapeValues0: [-5], TacticValue: 0x0000000000000001, StreamId: 0, Metadata: "
    )
    [layer] = parse_layers(dump(copied))
    assert (layer.name, layer.outputs, layer.tactic) == ("[ShapeHostToDeviceCopy 0]", ("Int64",), "0x0000000000000001")
    assert (layer.constants, layer.multiplies) == ((), False)


def test_events_between_streams_are_no_kernels():
    waiting = "Name: m, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, EventId: 1"
    [layer] = parse_layers(dump(f"{waiting}, Metadata: "))
    assert (layer.kind, layer.multiplies, layer.nodes) == ("wait", False, ())


@pytest.mark.parametrize(
    ("name", "kind", "multiplies", "moves"),
    [
        ("c1_myl0_2", "correlation", True, False),
        ("v+k+q_myl0_2", "gemm", True, False),
        ("_gemm_mha_v2_myl0_6", "kgen", True, False),
        ("__myl_FcAddDivErfAddMulMul_myl0_14", "runtime_fusion", True, False),
        ("__myl_MoveReplConc_myl0_4", "kgen", False, True),
        ("__myl_MulAddReluMean_myl0_9", "kgen", False, False),
        ("Reformatting CopyNode", "Reformat", False, True),
    ],
)
def test_kinds(name, kind, multiplies, moves):
    [layer] = parse_layers(dump(line(name, kind)))
    assert (layer.multiplies, layer.moves) == (multiplies, moves)


def test_an_unknown_dump_is_refused_not_misread():
    with pytest.raises(UnreadableDumpError, match="cannot be read: Layer 1 of 3"):
        parse_layers(dump("Layer 1 of 3"))


def test_an_unknown_dump_costs_the_placement_not_the_engine():
    layers, complaint = _layers(dump("Layer 1 of 3"))
    assert layers == ()
    assert complaint.startswith("placement is not known: a line of TensorRT's layer dump")
    assert "no layer dump" in _layers("")[1]
    assert _layers(dump(line("c1_myl0_2", "correlation")))[1] == ""


def test_no_dump_is_no_placement():
    assert parse_layers("") == ()
    assert place((Demand(node="c1", dtype="Int8"),), (), {}) is None


def test_folded_nodes_are_told_not_counted():
    layers = parse_layers(dump(line("c1_myl0_1", "correlation")))
    found = place((Demand(node="c1", dtype="Int8"), Demand(node="gone", dtype="Int8")), layers, {})
    assert (found.integer, found.float) == (1, 0)
    assert "no kernel of their own (folded, or inside an LSTM or GRU): gone" in found.notes


def test_int8_that_ran_in_float_is_float():
    layers = parse_layers(dump(line("c1_myl0_1", "correlation", types="Half")))
    found = place((Demand(node="c1", dtype="Int8"),), layers, {"c1": "Conv"})
    assert found.left_in_float[0].reason == "the graph asks for Int8, TensorRT built a Half kernel (correlation)"


def test_every_profile_has_to_be_int8():
    """Kernels of one profile share a number, and some of them name it; an inference runs through one profile."""
    layers = parse_layers(
        dump(
            line("c1_myl0_1", "correlation"),
            line("__myl_MulRounCast_myl0_2", types="Float", nodes="r1"),
            line("c1 [profile 1]_myl1_0", "correlation", types="Half"),
            line("__myl_MulRounCastRounCast_myl1_1", types="Float", nodes="r1"),
        )
    )
    assert [layer.profile for layer in layers] == [0, 0, 1, 1]
    found = place((Demand(node="c1", dtype="Int8"),), layers, {"c1": "Conv"})
    assert (found.integer, found.float) == (0, 1)
    assert found.left_in_float[0].reason.endswith("built a Half kernel (correlation) for profile 1")
    assert found.notes[0].startswith("2 layers, 2 roundings in generated kernels, 1 kernels that round more than once")


def test_each_node_has_the_kernel_that_multiplies_for_it():
    layers = parse_layers(
        dump(
            line("__myl_Move_myl0_0", nodes="c1", types="Float"),
            line("c1_myl0_1", "correlation", nodes="c1 r1"),
            line("c2_myl0_2", "correlation", nodes="c2", types="Half"),
        )
    )
    found = place((Demand(node="c1", dtype="Int8"),), layers, {"c1": "Conv"})
    ran = {one.node: one.kernel for one in found.nodes}
    assert ran == {"c1": "correlation Int8", "r1": "correlation Int8", "c2": "correlation Half"}
