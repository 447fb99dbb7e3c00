"""Where the loss comes from: what is known is not run again, and what does not run says so."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from qpipe.errors import ModelError
from qpipe.execute.work.attributing import (
    ENGINE,
    FEWEST,
    FLOAT,
    FLOAT_NODES,
    FLOAT_OUTPUTS,
    PREPARED,
    QUANTIZED,
    ROWS,
    Judged,
    attribute,
    first_rows,
)
from qpipe.execute.work.explaining import kernels
from qpipe.measure.evaluation import sqnr_db
from qpipe.measure.reference import open_reference, reference_computation
from qpipe.measure.rows import run_rows
from qpipe.models import read_model
from qpipe.prepare import builtin_recipe, prepare
from qpipe.quant.schemes import LITERT, LITERT_INTEGER, ORT_X86_AVX2, ORT_X86_VNNI
from qpipe.testing.progress import Silent


@pytest.fixture
def judged(tmp_path):
    """A small network, its static and its float recipe, and outputs of everything over 40 rows."""
    text = "(float[N,16] x) => (float[N,8] y) { [first] a = Gemm(x, w0, b0) b = Relu(a) [second] y = Gemm(b, w1, b1) }"
    return network(tmp_path, text, {"w0": (16, 16), "b0": (16,), "w1": (16, 8), "b1": (8,)}, (16,), ORT_X86_VNNI)


def network(folder, text, weights, row, scheme):
    """A model of random weights, 40 random rows, and what its recipes make of it for a scheme."""
    rng = np.random.default_rng(0)
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}')
    for name, shape in weights.items():
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(proto, folder / "net.onnx")
    model = read_model(folder / "net.onnx", name="net", origin="here")
    rows = rng.standard_normal((40, *row)).astype(np.float32)

    engine = {}

    def ready(recipe):
        made = folder / recipe
        made.mkdir()
        found = prepare(
            model, builtin_recipe(recipe, scheme), scheme, lambda: iter([{"x": rows}]), made, None, Silent()
        )
        engine[recipe] = found.deployable
        return found

    return SimpleNamespace(model=model, rows=rows, ready=ready, path=folder, engine=engine)


def outputs(file, rows, value):
    evaluation = SimpleNamespace(value=value, role="gate")
    return Judged(outputs=run_rows(open_reference(file), [{"x": rows}]), evaluation=evaluation)


def role(rows):
    def batches(_size=None):
        yield SimpleNamespace(rows=len(rows), items={"x": rows}.items)

    return SimpleNamespace(batches=batches)


def attributed(judged, recipe, *, computes, rows=None):
    ready = judged.ready(recipe)
    shown = judged.rows if rows is None else rows
    float_model = outputs(judged.model.file, shown, 0.9)
    engine = outputs(ready.deployable, shown, 0.8)
    name = reference_computation(ready.deployable) if computes else ""
    engine = Judged(outputs=engine.outputs, evaluation=engine.evaluation, computes=name)
    found = attribute(judged.model, ready, role(shown), float_model=float_model, engine=engine)
    return found, {step.name: step for step in found.attribution.steps}


@pytest.mark.parametrize("computes", [True, False])
def test_a_static_engine_has_four_steps_and_loses_where_it_quantizes(judged, computes):
    found, steps = attributed(judged, "int8", computes=computes)
    assert list(steps) == [FLOAT, PREPARED, QUANTIZED, ENGINE]
    assert found.attribution.rows == ROWS
    assert (steps[FLOAT].metric, steps[FLOAT].sqnr_db) == (0.9, None)
    assert steps[PREPARED].sqnr_db > steps[QUANTIZED].sqnr_db > 20
    assert steps[QUANTIZED].sqnr_db == pytest.approx(steps[ENGINE].sqnr_db, abs=1e-9)
    assert steps[QUANTIZED].metric == (0.8 if computes else None)
    tensors = [
        run_rows(open_reference(file), [{"x": judged.rows[:ROWS]}]).tensors["y"]
        for file in (judged.model.file, judged.engine["int8"])
    ]
    assert steps[ENGINE].sqnr_db == pytest.approx(sqnr_db(*tensors), abs=1e-6)
    assert found.remarks == ()


@pytest.mark.parametrize(("broken", "said"), [(False, "the same outputs"), (True, "outputs that are not finite")])
def test_a_step_without_an_sqnr_says_whether_nothing_is_lost_or_all(judged, broken, said):
    ready = judged.ready("none")
    float_model, engine = (outputs(judged.model.file, judged.rows, 0.9) for _ in range(2))
    engine.outputs.tensors["y"][0] = np.nan if broken else engine.outputs.tensors["y"][0]
    found = attribute(judged.model, ready, role(judged.rows), float_model=float_model, engine=engine)
    notes = {step.name: step.note for step in found.attribution.steps}
    assert notes[PREPARED] == "the model as given"
    assert notes[ENGINE].startswith(said)


@pytest.mark.parametrize(
    ("scheme", "named"),
    [
        (LITERT, [FLOAT, PREPARED, FLOAT_NODES, QUANTIZED, ENGINE]),
        (LITERT_INTEGER, [FLOAT, PREPARED, FLOAT_NODES, FLOAT_OUTPUTS, QUANTIZED, ENGINE]),
        (ORT_X86_AVX2, [FLOAT, PREPARED, QUANTIZED, ENGINE]),
    ],
)
def test_what_another_target_leaves_in_float_and_this_one_does_not_has_a_step_and_a_cost(tmp_path, scheme, named):
    text = (
        "(float[N,1,6,6] x) => (float[N,5] y) { [image] a = Conv<kernel_shape=[3,3]>(x, w0, b0) b = Relu(a) "
        "c = Flatten(b) [head] y = Gemm(c, w1, b1) }"
    )
    weights = {"w0": (8, 1, 3, 3), "b0": (8,), "w1": (128, 5), "b1": (5,)}
    found, steps = attributed(network(tmp_path, text, weights, (1, 6, 6), scheme), "int8", computes=False)
    assert list(steps) == named
    if FLOAT_NODES in steps:
        step, later = steps[FLOAT_NODES], steps[named[named.index(FLOAT_NODES) + 1]]
        assert step.nodes == ("image",)
        assert step.sqnr_db > later.sqnr_db + 1
        cost = f"integers in these nodes cost {step.sqnr_db - later.sqnr_db:.1f} dB"
        assert step.note == f"quantized, but for image: {cost}"
    assert found.remarks == ()


def test_the_float_engine_is_the_model_as_given(judged):
    _, steps = attributed(judged, "none", computes=True)
    assert (steps[PREPARED].note, steps[PREPARED].metric) == ("the model as given", 0.9)
    assert steps[QUANTIZED].note == "this recipe has no Q/DQ graph"


def test_a_cast_is_what_the_engine_runs(judged):
    _, steps = attributed(judged, "fp16", computes=True)
    assert steps[PREPARED].note == "what the engine runs"
    assert steps[PREPARED].sqnr_db == steps[ENGINE].sqnr_db > 50


@pytest.mark.parametrize(("times", "kind"), [(2, "other-rows"), (20, "other-inputs")])
def test_rows_beyond_the_ranges_are_told(judged, times, kind):
    found, _ = attributed(judged, "int8", computes=True, rows=judged.rows * times)
    assert {kind} == {remark.kind for remark in found.remarks}
    assert "x" in {remark.subject for remark in found.remarks}


def test_a_step_that_does_not_run_says_so(judged):
    ready = judged.ready("int8")
    float_model = outputs(judged.model.file, judged.rows, 0.9)
    graph = onnx.load(ready.qdq.path)
    graph.graph.node[-1].op_type = "NoKernelForThis"
    onnx.save(graph, ready.qdq.path)
    found = attribute(judged.model, ready, role(judged.rows), float_model=float_model, engine=float_model)
    step = next(step for step in found.attribution.steps if step.name == QUANTIZED)
    assert step.note.startswith("not run: ")
    assert (step.metric, step.sqnr_db) == (None, None)


@pytest.mark.parametrize(("size", "rows"), [(10, ROWS), (224 * 224 * 3, FEWEST), (60_000, 8)])
def test_large_rows_are_looked_at_in_small_numbers(size, rows):
    assert len(first_rows({"x": np.zeros((64, size), np.float32)})["x"]) == rows


def test_a_relu_that_a_kernel_does_has_that_kernel_not_what_moves_its_tensor():
    """On packs of pixels the last operator that writes the Relu's tensor is a Reshape."""
    choices = (("conv", ""), ("relu", "conv"), ("pool", ""))
    plan = SimpleNamespace(nodes=tuple(SimpleNamespace(node=name, absorbed_into=into) for name, into in choices))
    ran = (("conv", "QLinearConv"), ("relu", "Reshape"), ("pool", "QLinearAveragePool"))
    placement = SimpleNamespace(nodes=tuple(SimpleNamespace(node=name, kernel=kernel) for name, kernel in ran))
    found = kernels(plan, placement)
    assert found == {"conv": "QLinearConv", "relu": "QLinearConv", "pool": "QLinearAveragePool"}
    assert kernels(plan, None) == {}


@pytest.mark.parametrize(("opens", "name"), [("open_float_nodes", FLOAT_NODES), ("open_float_outputs", FLOAT_OUTPUTS)])
def test_a_step_between_that_does_not_run_says_so(judged, monkeypatch, opens, name):
    def refuse(*_):
        raise ModelError("no kernel for it")

    monkeypatch.setattr(f"qpipe.execute.work.attributing.{opens}", refuse)
    _, steps = attributed(judged, "int8", computes=True)
    assert (steps[name].note, steps[name].sqnr_db) == ("not run: no kernel for it", None)
