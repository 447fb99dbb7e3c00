"""What engines run as, and the traps of the runtime's defaults."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import onnx
import pytest
from qpipe_openvino.backend import OpenVinoBackend
from qpipe_openvino.machine import BF16, OPENVINO, OPENVINO_AVX2, OPENVINO_BF16, SIGNED
from qpipe_openvino.session import SHAPES_KEPT

from qpipe.engines import read_engine, write_engine
from qpipe.errors import BuildError, EngineError, RefusedError, TargetError
from qpipe.measure.cpu import VNNI, read_cpu
from qpipe.models import read_model
from qpipe.prepare import builtin_recipe, prepare
from qpipe.records.engine import Ready
from qpipe.records.target import Host, Target
from qpipe.testing.models import small_batches, small_rows, write_small_model
from qpipe.testing.progress import Silent

BACKEND = OpenVinoBackend()
TARGET = Target(name="x86-openvino", backend="openvino", arch="x86_64")
pytestmark = pytest.mark.skipif(read_cpu().arch != "x86_64", reason="the backend is for x86-64")


def engine(folder, recipe, scheme=OPENVINO):
    folder.mkdir()
    model = write_small_model(folder)
    (folder / "stages").mkdir()
    prepared = prepare(model, builtin_recipe(recipe, scheme), scheme, small_batches, folder / "stages", None, Silent())
    (folder / "engine").mkdir()
    built = BACKEND.build(prepared, TARGET, folder / "engine", Silent())
    write_engine(
        folder / "engine",
        built,
        model=model.name,
        model_digest=model.digest,
        recipe=recipe,
        target=TARGET.name,
        backend=BACKEND.name,
        signature=model.signature,
    )
    return read_engine(folder / "engine")


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openvino")
    return {recipe: engine(folder / recipe, recipe) for recipe in ("none", "int8", "fp16")}


def logits(engine, rows, target=TARGET):
    session = BACKEND.open(engine, target)
    found = session.run({"image": rows})["logits"]
    session.close()
    return found


def kernels(engine):
    return {one.node: one.kernel for one in engine.placement.nodes}


def test_weighted_layers_run_on_integers_and_are_named(engines):
    placement = engines["int8"].placement
    assert (placement.integer, placement.float, placement.left_in_float) == (3, 0, ())
    assert all(kernels(engines["int8"])[name].endswith(" u8") for name in ("conv1", "conv2", "head"))


def test_a_float_engine_computes_in_float32_on_every_cpu(engines):
    # By default it is bfloat16 where the CPU has it: a float engine that is not one would be the baseline.
    assert all(kernels(engines["none"])[name].endswith(" f32") for name in ("conv1", "conv2", "head"))
    assert (engines["none"].placement.integer, engines["none"].placement.float) == (0, 3)


def test_weights_keep_their_type_in_the_file(engines):
    # By default float32 weights would be written as float16.
    sizes = {recipe: (found.path / "model.bin").stat().st_size for recipe, found in engines.items()}
    assert sizes["none"] >= 4 * (36 + 4 + 288 + 8 + 24 + 3)
    assert sizes["fp16"] < sizes["none"]


def test_half_weights_are_told_as_what_they_are(engines):
    left = engines["fp16"].placement.left_in_float
    assert [node.name for node in left] == ["conv1", "conv2", "head"]
    assert all(node.reason == "OpenVINO computes it in f32: float16 is for storing weights" for node in left)


def test_bfloat16_is_arithmetic_where_the_cpu_has_it(tmp_path):
    if not read_cpu().has(BF16):
        pytest.skip("this CPU has no bfloat16")
    found = engine(tmp_path / "bf16", "bf16", OPENVINO_BF16)
    assert found.placement.integer == 3
    assert found.requires[-1].value == BF16


def subtracts(engine):
    return any(name.startswith("Eltwise") for name, _ in engine.placement.kernels)


def test_an_int8_zero_point_costs_a_layer_where_convolutions_read_signed_integers(tmp_path, engines):
    # Why activations are unsigned. CPUs whose convolutions do not read signed ones get unsigned ones from OpenVINO.
    signed = engine(tmp_path / "signed", "int8", replace(OPENVINO, name="signed", activation="int8"))
    assert subtracts(signed) == read_cpu().has(SIGNED)
    assert not subtracts(engines["int8"])


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "OV_CPU_MAX_ISA"])
def test_a_variable_that_holds_kernels_back_is_refused(engines, monkeypatch, name):
    # An engine that requires VNNI saturates without (9 dB), and its evidence would name a CPU that has it.
    monkeypatch.setenv(name, "AVX2")
    here = BACKEND.check(TARGET)
    assert here.run == here.build
    assert here.run.reason.startswith(f"{name}=AVX2 keeps OpenVINO from this CPU's own kernels")
    assert here.run.hint == f"unset {name}"
    with pytest.raises(EngineError, match=f"{name}=AVX2"):
        BACKEND.open(engines["int8"], TARGET)
    monkeypatch.setenv(name, "default")
    assert isinstance(BACKEND.check(TARGET).run, Ready)


def test_one_thread_is_the_callers(engines):
    session = BACKEND.open(engines["int8"], TARGET)
    rows = small_rows(4096)
    session.run({"image": rows})
    whole, own = time.process_time(), time.thread_time()
    session.run({"image": rows})
    whole, own = time.process_time() - whole, time.thread_time() - own
    assert own > 0.8 * whole, "the CPU time of a profile is the calling thread's"


def test_fixed_shapes_give_the_same_rows(engines):
    fixed = BACKEND.open(engines["int8"], replace(TARGET, options={"shapes": "fixed"}))
    free = BACKEND.open(engines["int8"], TARGET)
    for count in (*range(1, SHAPES_KEPT + 2), 1):  # the first one is compiled again at the end
        rows = small_rows(count)
        found, expected = (session.run({"image": rows})["logits"] for session in (fixed, free))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"shapes": "fixed"}])
@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({}, "inputs are missing; the engine has image"),
        ({"image": small_rows(1), "more": small_rows(1)}, "inputs are image, more"),
        ({"image": small_rows(1).astype(np.float64)}, "input image is float64"),
        ({"image": small_rows(1)[:, :, :5]}, r"float32\[1, 1, 5, 8\]; it takes image: float32\[N, 1, 8, 8\]"),
        ({"image": small_rows(1)[0]}, r"input image is float32\[1, 8, 8\]"),
    ],
)
def test_inputs_that_the_model_does_not_take_are_refused(engines, options, inputs, reason):
    session = BACKEND.open(engines["int8"], replace(TARGET, options=options))
    session.run({"image": small_rows(2)})  # a request would take these values again for an input that is missing
    with pytest.raises(EngineError, match=reason):
        session.run(inputs)


@pytest.mark.parametrize("rows", [small_rows(4)[::2], small_rows(4).transpose(0, 1, 3, 2)])
def test_rows_that_do_not_lie_in_order_are_read_right(engines, rows):
    rows.flags.writeable = False
    np.testing.assert_array_equal(logits(engines["none"], rows), logits(engines["none"], np.ascontiguousarray(rows)))


def test_a_file_that_is_no_engine_is_one_line(engines, tmp_path):
    (tmp_path / "model.xml").write_text("<net")
    with pytest.raises(EngineError, match="OpenVINO cannot load engine") as caught:
        BACKEND.open(replace(engines["int8"], path=tmp_path), TARGET)
    assert "\n" not in caught.value.message


def test_an_operator_that_openvino_lacks_is_named(tmp_path):
    model = write_small_model(tmp_path)
    graph = onnx.load(model.file.path)
    graph.graph.node[1].op_type, graph.graph.node[1].domain = "Mystery", "ours"
    graph.opset_import.append(onnx.helper.make_opsetid("ours", 1))
    (tmp_path / "stages").mkdir()
    prepared = prepare(
        model, builtin_recipe("none", OPENVINO), OPENVINO, small_batches, tmp_path / "stages", None, Silent()
    )
    onnx.save_model(graph, prepared.deployable.path)
    with pytest.raises(BuildError, match="Mystery"):
        BACKEND.build(prepared, TARGET, tmp_path, Silent())


PADS = ((4, 5, 6), (8, 4, 1, 1), "pads=[1,1,1,1], strides=[1,2]")
VOLUME = ((1, 1, 6, 6), (5, 1, 3, 3, 3), "pads=[1,1,1,1,1,1]")


def build_conv(folder, recipe, conv):
    """An engine of one convolution behind a Relu."""
    shape, weight, attributes = conv
    random = np.random.default_rng(1)
    head = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,{}] x) => (float[N{}] y)'
    head = head.format(",".join(map(str, shape)), ",D" * len(shape))
    graph = onnx.parser.parse_model(f"{head} {{ r = Relu(x) y = Conv<{attributes}>(r, w) }}")
    graph.graph.initializer.append(onnx.numpy_helper.from_array(random.normal(size=weight).astype(np.float32), "w"))
    onnx.save_model(graph, folder / "conv.onnx")
    model = read_model(folder / "conv.onnx", name="conv", origin="conv")
    rows = random.normal(size=(8, *shape)).astype(np.float32)
    for name in ("stages", "engine"):
        (folder / name).mkdir()
    made = builtin_recipe(recipe, OPENVINO)
    prepared = prepare(model, made, OPENVINO, lambda: iter([{"x": rows}]), folder / "stages", None, Silent(), rows=8)
    return BACKEND.build(prepared, TARGET, folder / "engine", Silent())


@pytest.mark.parametrize(
    ("recipe", "conv", "reason", "hint"),
    [
        ("none", PADS, r"its shape is \[2, 8, 7, 5\], the graph's \[2, 8, 7, 4\]", "backend onnxruntime"),
        ("int8", VOLUME, r"-?\d+\.\d dB", "`keep_float`"),
    ],
)
def test_a_graph_that_openvino_computes_wrongly_is_refused(tmp_path, recipe, conv, reason, hint):
    # OpenVINO 2026.4.1: pads of a 1x1 Conv with strides behind a Relu; int8 volumes of depth 1 and few channels.
    with pytest.raises(
        RefusedError, match=f"computes another 'y' than onnxruntime on made-up rows: {reason}"
    ) as caught:
        build_conv(tmp_path, recipe, conv)
    assert hint in caught.value.hint


def test_how_well_an_engine_agrees_is_noted(tmp_path):
    built = build_conv(tmp_path, "none", VOLUME)
    assert [note for note in built.notes if note.startswith("agrees with onnxruntime on made-up rows: ")]


@pytest.mark.parametrize(
    ("isa", "scheme"),
    [((VNNI,), OPENVINO), (("avx2",), OPENVINO_AVX2), ((VNNI, "amx_bf16"), OPENVINO_BF16)],
)
def test_the_targets_flags_choose_the_scheme(isa, scheme):
    assert BACKEND.scheme(replace(TARGET, isa=isa)) == scheme
    assert BACKEND.scheme(replace(TARGET, scheme=scheme.name)) == scheme


def test_other_machines_and_hosts_are_unavailable_with_a_reason():
    assert "aarch64" in BACKEND.check(replace(TARGET, arch="aarch64")).run.reason
    assert "sve" in BACKEND.check(replace(TARGET, isa=("sve",))).run.reason
    away = replace(TARGET, host=Host(kind="ssh", address="pi@pi5"))
    assert BACKEND.check(away).run.impossible


def test_a_wrong_shapes_option_is_refused():
    with pytest.raises(TargetError, match='shapes: "square" is not one of'):
        BACKEND.check(replace(TARGET, options={"shapes": "square"}))
