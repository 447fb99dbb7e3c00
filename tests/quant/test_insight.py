"""Per-layer tables, sensitivity and lint on a network with one layer that is hard to quantize."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from networks import write_network

from qpipe.measure.evaluation import sqnr_db
from qpipe.quant.calibration.calibrate import calibrate
from qpipe.quant.calibration.observed import observed_tensors
from qpipe.quant.calibration.statistics import load_statistics, save_statistics
from qpipe.quant.check import run_float
from qpipe.quant.corrections.bias import correct_bias
from qpipe.quant.diagnosis.clipping import run_watched
from qpipe.quant.diagnosis.layers import explain_layers
from qpipe.quant.diagnosis.lint import lint_batches, lint_calibration, lint_inputs, lint_shares, load_lint, save_lint
from qpipe.quant.diagnosis.sensitivity import _worst_first, build, escape, sensitivity
from qpipe.quant.graph import open_graph
from qpipe.quant.options import QuantOptions, matches
from qpipe.quant.plan import make_plan
from qpipe.quant.rendering.render import render
from qpipe.quant.schemes import ORT_X86_VNNI
from qpipe.records.quantization import InputRange, QuantPlan
from qpipe.report.insight import worst_first


@pytest.fixture
def hard(tmp_path):
    """Three Gemms; the second one's input has a lone huge channel that its weights do not need."""
    rng = np.random.default_rng(0)
    head = "(float[N,16] x, float[N,4] unused) => (float[N,16] y, float[N,4] z)"
    body = (
        "a = MatMul(x, w0) b = Tanh(a) t = Mul(b, big) c = MatMul(t, w1) d = Tanh(c) y = MatMul(d, w2) z = Abs(unused)"
    )
    arrays = {f"w{number}": rng.standard_normal((16, 16)).astype(np.float32) * 0.3 for number in range(3)}
    arrays["big"] = np.ones(16, np.float32)
    arrays["big"][0], arrays["w1"][0] = 3000.0, 1e-4
    model = open_graph(write_network(tmp_path / "m.onnx", head, body, arrays))
    batch = {"x": rng.standard_normal((64, 16)).astype(np.float32), "unused": np.ones((64, 4), np.float32)}
    statistics = calibrate(model, iter([batch]), observed_tensors(model.graph, ORT_X86_VNNI))
    return model, statistics, batch


def score_of(model, batch):
    reference = run_float(model, batch)[0].astype(np.float64)

    def score(graph):
        found = sqnr_db(reference, run_float(graph, batch)[0].astype(np.float64))
        return 200.0 if found is None else found

    return score


def names(model):
    return [node.name for node in model.graph if node.op_type == "MatMul"]


def test_sensitivity_finds_the_hard_layer(hard):
    model, statistics, batch = hard
    found = sensitivity(model, statistics, ORT_X86_VNNI, score_of(model, batch))
    assert found[0].node == names(model)[1]
    assert len(found) == 3
    assert found[0].noise > 10 * found[1].noise


def test_what_there_is_no_time_for_is_left_out(hard):
    model, statistics, batch = hard
    looks = iter([False, False, True])
    found = sensitivity(model, statistics, ORT_X86_VNNI, score_of(model, batch), over=lambda: next(looks, True))
    assert len(found) == 2


def test_nodes_that_hurt_only_together_are_found(tmp_path):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((16, 16)).astype(np.float32)
    arrays = dict.fromkeys(("wa", "wb", "wt"), weight) | {"w": weight[::-1].copy(), "big": np.float32([40])}
    body = (
        "[plain] base = MatMul(x, w) [one] p = MatMul(x, wa) [two] q = MatMul(x, wb) [truth] t = MatMul(x, wt)"
        "dp = Sub(p, t) dq = Sub(q, t) ep = Abs(dp) eq = Abs(dq) both = Min(ep, eq) much = Mul(both, big)"
        "y = Add(base, much)"
    )
    model = open_graph(write_network(tmp_path / "m.onnx", "(float[N,16] x) => (float[N,16] y)", body, arrays))
    batch = {"x": rng.standard_normal((64, 16)).astype(np.float32)}
    statistics = calibrate(model, iter([batch]), observed_tensors(model.graph, ORT_X86_VNNI))
    found = sensitivity(model, statistics, ORT_X86_VNNI, score_of(model, batch), QuantOptions(keep_float=("truth",)))
    assert found[-1].node == "plain", "alone it is the worst: the other two cost nothing by themselves"
    assert found[0].noise > 2 * found[-1].noise


@pytest.mark.parametrize("loud", [{7: 5.0, 90: 3.0, 91: 2.0, 200: 1.0}, {}])
def test_a_few_runs_tell_the_worst_of_hundreds(loud):
    names = tuple(str(number) for number in range(400))
    rng = np.random.default_rng(0)
    own = {name: loud.get(number, 0.001 + 0.005 * rng.random()) for number, name in enumerate(names)}
    runs = []

    def noise(group):
        runs.append(group)
        return sum(own[name] for name in group)

    found = _worst_first(names, noise, lambda: False)
    assert sorted(one.node for one in found) == sorted(names)
    assert [int(one.node) for one in found[: len(loud)]] == list(loud)
    assert sum(one.noise for one in found) == pytest.approx(sum(own.values()))
    assert len(runs) < 120


@pytest.mark.parametrize("name", ["stem", "op:Conv", "a[0]*?", "plain"])
def test_a_node_of_any_name_is_meant_alone(name):
    node, other = (ir.node("Conv", [ir.Value(name="x")], name=own) for own in (name, "other"))
    assert matches(escape(name), node)
    assert not matches(escape(name), other)


IMAGES = np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)
MET = InputRange(name="x", low=-4.0, high=4.0, narrowest=6.0)


@pytest.mark.parametrize(
    ("met", "rows", "said"),
    [
        (MET, IMAGES, ""),
        (MET, IMAGES[:, ::-1], ""),  # other channels of images, labels, classes: no range is wrong for it
        (replace(MET, high=255 * 4.0, narrowest=255 * 3.0), IMAGES, "they use 0.7"),
        (replace(MET, high=255 * 4.0), IMAGES, ""),  # one outlier in calibration is no other scale
        (replace(MET, low=0.0, high=1.0, narrowest=1.0), IMAGES, "66 % of them lie outside"),
        (MET, IMAGES * np.nan, ""),
        (MET, np.zeros((4, 3), np.float32), ""),  # a mask, say
        (MET, np.full((4, 3), 7), "100 % of them lie outside"),
        (replace(MET, name="other"), IMAGES * 99, ""),
    ],
)
def test_another_scale_of_an_input_is_named(met, rows, said):
    plan = QuantPlan(scheme=ORT_X86_VNNI, mode="static", activations=(), weights=(), nodes=(), inputs=(met,))
    found = [remark.line for remark in lint_inputs(plan, {"x": rows})]
    assert len(found) == bool(said)
    assert all(line.startswith("'x': calibration has values from ") and said in line for line in found)
    assert all(line.endswith("are both preprocessed alike?") for line in found)


def test_the_range_of_inputs_is_known_without_outliers(hard, tmp_path):
    model, _, batch = hard
    rows = np.tile(batch["x"][:16], (3, 1))
    rows[20, 3] = 500.0
    found = calibrate(model, iter([{**batch, "x": rows}]), {})
    save_statistics(found, tmp_path)
    (entry,) = (one for one in load_statistics(tmp_path).inputs if one.name == "x")
    assert entry == next(one for one in found.inputs if one.name == "x")
    assert (entry.high, entry.narrowest) == (500.0, pytest.approx(np.ptp(batch["x"][:16])))


def test_layer_table_shows_where_the_loss_begins(hard):
    model, statistics, batch = hard
    qdq, plan = build(model, statistics, ORT_X86_VNNI, QuantOptions())
    rows = {row.tensor: row for row in explain_layers(model, qdq, plan, batch)}
    assert set(rows) == {spec.tensor for spec in plan.activations}
    assert rows["x"].op == "input"
    assert rows["x"].sqnr_db > 30
    assert rows["d"].sqnr_db < 20
    assert rows["d"].node


def test_lint_speaks_of_constant_inputs_and_few_rows(hard):
    model, _, batch = hard
    few = calibrate(
        model, iter([{name: array[:8] for name, array in batch.items()}]), observed_tensors(model.graph, ORT_X86_VNNI)
    )
    assert {finding.kind for finding in lint_calibration(few)} == {"rows", "few-rows", "constant-input"}
    assert next(item for item in lint_calibration(few) if item.kind == "constant-input").subject == "unused"


def test_lint_compares_with_other_rows(hard):
    model, statistics, batch = hard
    _, plan = build(model, statistics, ORT_X86_VNNI, QuantOptions())
    axes = observed_tensors(model.graph, ORT_X86_VNNI)
    wide = calibrate(model, iter([{**batch, "x": batch["x"] * 50}]), axes)
    found = lint_calibration(statistics, plan, wide)
    assert ("other-rows", "x") in {(item.kind, item.subject) for item in found}
    same = lint_calibration(statistics, plan, statistics)
    assert "other-rows" not in {item.kind for item in same}


@pytest.mark.parametrize(("body", "expected"), [("y = Tanh(x)", 0), ("m = ReduceMean<axes=[0]>(x) y = Sub(x, m)", 1)])
def test_lint_finds_dependence_on_the_batch(tmp_path, body, expected):
    path = write_network(tmp_path / "m.onnx", "(float[N,4] x) => (float[N,4] y)", body, {})
    batch = {"x": np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)}
    assert len(lint_batches(open_graph(path), batch)) == expected


def test_statistics_survive_a_round_trip(hard, tmp_path):
    _, statistics, _ = hard
    save_statistics(statistics, tmp_path)
    again = load_statistics(tmp_path)
    assert (again.rows, again.batches, again.inputs, again.missing) == (
        statistics.rows,
        statistics.batches,
        statistics.inputs,
        statistics.missing,
    )
    for old, new in zip(statistics, again, strict=True):
        assert (old.tensor, old.axis, old.shape, old.range, old.zeros) == (
            new.tensor,
            new.axis,
            new.shape,
            new.range,
            new.zeros,
        )
        for name in ("low", "high", "mean", "bins", "vectors"):
            np.testing.assert_array_equal(getattr(old, name), getattr(new, name))


def test_escaped_names_match_themselves_alone():
    assert escape("a[0]*") == "a[[]0][*]"


def test_shares_outside_a_range_are_counted_in_the_graph(hard):
    model, statistics, batch = hard
    _, plan = build(model, statistics, ORT_X86_VNNI, QuantOptions(ranges="minmax"))
    same = run_watched(model, plan, batch)
    (name, found), *_ = same.outputs
    assert name == model.graph.outputs[0].name
    np.testing.assert_allclose(found, run_float(model, batch)[0], rtol=1e-5, atol=1e-5)
    assert lint_shares(plan, dict(same.shares)) == ()
    far = {**batch, "x": batch["x"] * 50}
    spec = plan.activation("x")
    beyond = np.mean((far["x"] < spec.low - spec.scale / 2) | (far["x"] > spec.high + spec.scale / 2))
    shares = dict(run_watched(model, plan, far).shares)
    assert shares["x"] == pytest.approx(beyond, abs=1e-6)
    assert "other-rows" in {item.kind for item in lint_shares(plan, shares) if item.subject == "x"}


def test_lint_is_kept_beside_statistics(hard, tmp_path):
    _, statistics, _ = hard
    found = lint_calibration(statistics)
    save_lint(found, tmp_path)
    assert load_lint(tmp_path) == found
    assert [item.warns for item in found] == [item.kind == "constant-input" for item in found]


def test_lint_leaves_graphs_of_one_batch_size_alone(tmp_path):
    path = write_network(tmp_path / "m.onnx", "(float[4,4] x) => (float[4,4] y)", "y = Softmax<axis=0>(x)", {})
    assert lint_batches(open_graph(path), {"x": np.eye(4, dtype=np.float32)}) == ()


def test_each_layer_alone_names_both_that_are_hard(tmp_path):
    """What comes first spoils all that follow: the second one is seen only where its own input is float."""
    rng = np.random.default_rng(0)
    body = (
        "a = MatMul(x, w0) b = Tanh(a) t = Mul(b, big) c = MatMul(t, w1) d = Tanh(c) e = MatMul(d, w2) f = Tanh(e) "
        "u = Mul(f, big) g = MatMul(u, w3) h = Tanh(g) y = MatMul(h, w4)"
    )
    arrays = {f"w{number}": rng.standard_normal((16, 16)).astype(np.float32) * 0.3 for number in range(5)}
    arrays["big"] = np.ones(16, np.float32)
    arrays["big"][0] = 3000.0
    arrays["w1"][0] = arrays["w3"][0] = 1e-4
    model = open_graph(write_network(tmp_path / "m.onnx", "(float[N,16] x) => (float[N,16] y)", body, arrays))
    batch = {"x": rng.standard_normal((64, 16)).astype(np.float32)}
    statistics = calibrate(model, iter([batch]), observed_tensors(model.graph, ORT_X86_VNNI))
    corrected = model.clone()
    plan = make_plan(corrected, statistics, ORT_X86_VNNI)
    plan = replace(plan, corrected=correct_bias(corrected, plan, statistics))
    found = explain_layers(corrected, render(corrected, plan), plan, batch)
    alone = {row.tensor: row.alone_db for row in found}
    assert max(alone["d"], alone["h"]) < 15
    assert min(alone["u"], alone["x"]) > 30
    assert next(row.sqnr_db for row in found if row.tensor == "u") < 15  # it inherits the loss of `d`
    assert {row.tensor for row in worst_first(found)[:2]} == {"d", "h"}


@pytest.mark.parametrize("function", ["Relu", "Clip"])
def test_a_layer_alone_begins_where_a_quantizer_does_the_relu_before_it(tmp_path, function):
    """By hand: the float model's own values, rounded to the integers of both ends and of the weights between."""
    rng = np.random.default_rng(0)
    ends = ", zero, six" if function == "Clip" else ""
    body = f"a = Conv(x, w0) b = {function}(a{ends}) c = Conv(b, w1) d = {function}(c{ends}) y = Conv(d, w2)"
    arrays = {f"w{number}": rng.standard_normal((8, 8, 1, 1)).astype(np.float32) for number in range(3)}
    arrays |= {"zero": np.float32(0), "six": np.float32(6)}
    head = "(float[N,8,4,4] x) => (float[N,8,4,4] y)"
    model = open_graph(write_network(tmp_path / "m.onnx", head, body, arrays))
    batch = {"x": rng.standard_normal((16, 8, 4, 4)).astype(np.float32)}
    statistics = calibrate(model, iter([batch]), observed_tensors(model.graph, ORT_X86_VNNI))
    plan = make_plan(model, statistics, ORT_X86_VNNI)
    qdq = render(model, plan)
    found = {row.tensor: row for row in explain_layers(model, qdq, plan, batch)}

    def rounded(name, real):
        spec = plan.activation(name)
        return (np.clip(np.rint(real / spec.scale) + spec.zero_point, 0, 255) - spec.zero_point) * spec.scale

    def conv(weight, real):
        return np.einsum("oi,nihw->nohw", weight[..., 0, 0].astype(np.float64), real)

    cut = {"Relu": lambda real: np.maximum(real, 0), "Clip": lambda real: np.clip(real, 0, 6)}[function]
    b = cut(conv(arrays["w0"], batch["x"]))
    d = cut(conv(arrays["w1"], b))
    step = np.abs(arrays["w1"]).max(axis=(1, 2, 3), keepdims=True) / 127
    weight = np.rint(arrays["w1"] / step) * step
    assert "d" not in {value.name for node in qdq.graph for value in node.outputs}
    assert found["d"].alone_db == pytest.approx(sqnr_db(d, rounded("d", conv(weight, rounded("b", b)))), abs=0.2)
    assert found["d"].alone_db > found["d"].sqnr_db + 1
