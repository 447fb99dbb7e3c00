"""What observes a tensor inside the graph: the numbers are the tensor's, and each is reduced where it is made."""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from networks import write_network

from qpipe.quant.calibration.calibrate import batches_of, calibrate
from qpipe.quant.calibration.observe import LIMIT, PHASE, instrument
from qpipe.quant.calibration.picks import pick_values
from qpipe.quant.calibration.signs import never_negative
from qpipe.quant.graph import open_graph
from qpipe.quant.session import content_of

BODY = """a = Conv<pads = [1, 1, 1, 1]>(x, w) b = Relu(a) c = Conv<pads = [1, 1, 1, 1]>(b, v) d = Clip(c, zero, six)
    y = Conv(d, u)"""
AXES = {"b": 1, "c": 1, "d": 1, "x": 1}


def weight(*shape):
    return (np.random.default_rng(0).standard_normal(shape) * 0.3).astype(np.float32)


@pytest.fixture
def model(tmp_path):
    head = "(float[N, 3, 24, 20] x) => (float[N, 8, 24, 20] y)"
    arrays = {"w": weight(16, 3, 3, 3), "v": weight(32, 16, 3, 3), "u": weight(8, 32, 1, 1)}
    limits = {"zero": np.float32(0), "six": np.float32(6)}
    return open_graph(write_network(tmp_path / "m.onnx", head, BODY, {**arrays, **limits}))


def rows(count=40):
    return {"x": np.random.default_rng(1).standard_normal((count, 3, 24, 20)).astype(np.float32)}


def shown(model, names):
    """The tensors themselves."""
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(values[name] for name in names)
    with content_of(copy, ort.SessionOptions()) as content:
        return dict(zip(names, ort.InferenceSession(content).run(None, rows()), strict=True))


@pytest.mark.parametrize("large", [0, 2**40], ids=["pooled", "reduced"])
def test_statistics_are_those_of_the_tensor(model, monkeypatch, large):
    monkeypatch.setattr("qpipe.quant.calibration.observe.LARGE", large)
    probes = {probe.tensor: probe for probe in instrument(model, AXES)[1]}
    assert ("ends" in probes["b"].parts) == (not large)
    assert ("low" in probes["c"].parts, "low" in probes["d"].parts) == (True, False)
    found = calibrate(model, batches_of(rows(), 7), AXES, drawn_per_row=1024)
    for name, true in shown(model, ["b", "c", "d"]).items():
        item = found.get(name)
        assert (item.shape, item.elements) == ((7, *true.shape[1:]), true.size)
        np.testing.assert_array_equal(item.high, true.max(axis=(0, 2, 3)))
        np.testing.assert_array_equal(np.minimum(item.low, 0), np.minimum(true.min(axis=(0, 2, 3)), 0))
        np.testing.assert_allclose(item.mean, true.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-6)
        assert 0.6 < item.drawn / (40 * 1024) < 2
        assert item.zeros / item.drawn == pytest.approx((true == 0).mean(), abs=0.01)
        assert item.square == pytest.approx(float(np.square(true, dtype=np.float64).mean()), rel=0.06)


def test_infinities_and_nan_are_seen_where_no_minimum_is_taken(model, monkeypatch):
    monkeypatch.setattr("qpipe.quant.calibration.observe.LARGE", 0)
    for bad in (np.nan, np.inf):
        data = rows(3)
        data["x"][1, 0, 5, 5] = bad
        found = calibrate(model, batches_of(data, 3), AXES)
        assert not found.get("b").finite


def test_every_tensor_is_reduced_before_the_next_one_is_made(model, tmp_path, monkeypatch):
    """Otherwise all activations of a row live until its end, and each reduction reads memory instead of a cache."""
    monkeypatch.setattr("qpipe.quant.calibration.observe.LARGE", 0)
    probed, probes = instrument(model, {name: axis for name, axis in AXES.items() if name != "c"})
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    with content_of(probed, options) as content:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feed = {**rows(2), LIMIT: np.array([64]), PHASE: np.array([0])}
    session.run(None, {value.name: feed[value.name] for value in session.get_inputs()})
    events = json.loads(Path(session.end_profiling()).read_text())
    events = [event for event in events if event["name"].endswith("_kernel_time")]
    kinds = [event["args"]["op_name"] for event in sorted(events, key=lambda event: event["ts"])]
    convs = [number for number, kind in enumerate(kinds) if kind in {"Conv", "FusedConv"} and number]
    pools = [number for number, kind in enumerate(kinds) if kind == "GlobalMaxPool"]
    assert len(pools) == 2
    assert {probe.tensor for probe in probes} == {"b", "d", "x"}
    # the network's second Conv comes after all that belongs to the first one's output
    between = [number for number in convs if pools[0] < number < pools[1]]
    assert between
    assert kinds.index("ReduceMax") < pools[0]


@pytest.mark.parametrize(("channels", "height", "width"), [(96, 112, 112), (1280, 7, 7), (16, 24, 20), (32, 1, 301)])
def test_picks_meet_every_row_and_every_column(channels, height, width):
    rows_met, columns_met, count, sizes = set(), set(), 0, set()
    for pick in pick_values(channels, height, width, 2048):
        assert (pick.taps.sum(axis=(1, 2, 3)) == 1).all()
        down, right = (
            (size - (kernel - 1) * dilation - 1) // stride + 1
            for size, kernel, dilation, stride in zip(
                (height, width), pick.kernel, pick.dilations, pick.strides, strict=True
            )
        )
        sizes.add((down, right))
        count += channels * down * right
        _, _, tall, wide = np.nonzero(pick.taps)
        rows_met |= {i * pick.strides[0] + tap * pick.dilations[0] for i in range(down) for tap in set(tall)}
        columns_met |= {i * pick.strides[1] + tap * pick.dilations[1] for i in range(right) for tap in set(wide)}
    assert (rows_met, columns_met) == (set(range(height)), set(range(width)))
    assert len(sizes) == 1
    assert 0.6 * 2048 < count < 2 * max(2048, channels)


@pytest.mark.parametrize(
    ("body", "never"),
    [
        ("y = Relu(x)", True),
        ("y = Clip(x, zero, six)", True),
        ("y = Clip(x, minus, six)", False),
        ("y = Clip(x)", False),
        ("a = Relu(x) b = Sigmoid(x) y = Add(a, b)", True),
        ("a = Relu(x) y = Add(a, x)", False),
        ("a = Relu(x) y = MaxPool<kernel_shape = [2, 2]>(a)", True),
        ("a = Sigmoid(x) y = Mul(x, a)", False),
        ("a = Relu(x) y = Mul(a, six)", False),
        ("y = Neg(x)", False),
    ],
)
def test_signs(tmp_path, body, never):
    head = "(float[N, 3, 4, 4] x) => (float[N, C, H, W] y)"
    numbers = {"zero": np.float32(0), "six": np.float32(6), "minus": np.float32(-1)}
    path = write_network(tmp_path / "m.onnx", head, body, numbers)
    assert never_negative(open_graph(path).graph.outputs[0]) == never


@pytest.mark.parametrize("lengths", [(4, 7, 4), (7, 4, 7), (1, 4, 6)])
def test_a_last_axis_of_changing_length_is_one_channel(tmp_path, lengths):
    """As the scores of an attention over sentences of several lengths."""
    body, head = "a = Neg(x) y = Relu(a)", "(float[N, K] x) => (float[N, K] y)"
    model = open_graph(write_network(tmp_path / "m.onnx", head, body, {}))
    random = np.random.default_rng(0)
    batches = [{"x": random.standard_normal((3, length)).astype(np.float32)} for length in lengths]
    item = calibrate(model, iter(batches), {"a": -1}).get("a")
    values = np.concatenate([-batch["x"].reshape(-1) for batch in batches])
    assert (item.axis, item.low.tolist(), item.high.tolist()) == (None, [values.min()], [values.max()])
    assert item.mean == pytest.approx(values.mean(), rel=1e-5)
    assert item.elements == values.size


def test_an_input_without_elements_is_described_and_has_no_range(tmp_path):
    """As the state of a decoder before its first word."""
    head, body = "(float[N, 4] x, float[N, P] past) => (float[N, Q] y)", "a = Relu(x) y = Concat<axis=1>(past, a)"
    model = open_graph(write_network(tmp_path / "m.onnx", head, body, {}))
    batch = {"x": np.ones((2, 4), np.float32), "past": np.zeros((2, 0), np.float32)}
    found = {item.name: item for item in calibrate(model, iter([batch]), {"a": -1}).inputs}
    assert (found["past"].low, found["past"].high, found["past"].shapes) == (0, 0, ((2, 0), (2, 0)))
    assert (found["x"].low, found["x"].high) == (1, 1)
