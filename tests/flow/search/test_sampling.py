"""Optuna turns the static recipe: real points, a real quantizer on a small network, no child processes."""

from types import SimpleNamespace

import numpy as np
import pytest
from networks import write_network

from qpipe.flow.search import search
from qpipe.flow.search.finalists import Rule
from qpipe.flow.search.sampler import FAR, cost, known_points, search_space
from qpipe.measure.evaluation import sqnr_db
from qpipe.models import read_model
from qpipe.planning.space import MOST_KEPT, describe_point, own_point, recipe_at, static_space
from qpipe.prepare import prepare
from qpipe.quant.schemes import ORT_X86_VNNI
from qpipe.records.result import SearchTrial
from qpipe.testing.progress import Silent

METRIC = SimpleNamespace(higher_is_better=True)
RULE = Rule(metric=METRIC, margin=3.0, objective="size")


@pytest.fixture
def net(tmp_path):
    """Two Gemms behind a Tanh; the second one's weights have a lone large value that ruins a per-tensor scale."""
    rng = np.random.default_rng(0)
    shapes = {"w0": (16, 16), "w1": (16, 4)}
    path = write_network(
        tmp_path / "net.onnx",
        "(float[N,16] x) => (float[N,4] y)",
        "[first] a = MatMul(x, w0) b = Tanh(a) [second] y = MatMul(b, w1)",
        {name: rng.standard_normal(shape).astype(np.float32) * 0.3 for name, shape in shapes.items()},
    )
    rows = rng.standard_normal((64, 16)).astype(np.float32)
    rows[0, 0] = 40.0
    return read_model(path, name="net", origin="here"), {"x": rows}


def run(path, feed):
    import onnxruntime as ort

    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feed)[0].astype(np.float64)


def attempts(net, folder):
    """What a search does in children, in this process: prepare a recipe and compare it with float."""
    model, rows = net
    feed = {"x": rows["x"][1:]}
    wanted = run(model.file.path, feed)

    def attempt(recipes):
        found = []
        for spec in recipes:
            place = folder / spec.name
            place.mkdir()
            recipe = SimpleNamespace(name=spec.name, stages=spec.stages)
            ready = prepare(model, recipe, ORT_X86_VNNI, lambda: iter([rows]), place, None, Silent())
            value = sqnr_db(wanted, run(ready.deployable.path, feed))
            size = ready.deployable.path.stat().st_size
            found.append(
                SearchTrial(
                    model="net",
                    target="t",
                    recipe=spec.name,
                    chosen=False,
                    reason="",
                    value=value,
                    reference=40.0,
                    size_bytes=size,
                )
            )
        return found

    return attempt


def test_tpe_tries_new_points_of_the_space_and_says_which(net, tmp_path):
    space = static_space(ORT_X86_VNNI, nodes=("first", "second"), smooths=False, equalizes=False)
    known = {own_point(space): 1e6}
    (tmp_path / "a").mkdir()
    found = search_space(space, RULE, attempts(net, tmp_path / "a"), known=known, most=5)
    assert len(found.trials) == len(found.recipes) == 5
    assert [one.recipe for one in found.trials] == [f"tuned{number}" for number in range(1, 6)]
    said = [one.tried for one in found.trials]
    assert len(set(said)) == 5
    assert describe_point(own_point(space)) not in said
    assert all(one.value is not None for one in found.trials)
    assert any("keep_float=[first]" in text for text in said)
    by_range = {one.tried.split()[0]: one.value for one in found.trials}
    assert len({round(value, 3) for value in by_range.values()}) > 1
    (tmp_path / "b").mkdir()
    again = search_space(space, RULE, attempts(net, tmp_path / "b"), known=known, most=5)
    assert [one.tried for one in again.trials] == said


def test_the_space_is_not_tried_twice_and_the_budget_ends_it():
    space = static_space(ORT_X86_VNNI, nodes=(), smooths=False, equalizes=False)
    assert space.size == 8

    def attempt(recipes):
        return [
            SearchTrial(model="m", target="t", recipe=spec.name, chosen=False, reason="crashed") for spec in recipes
        ]

    found = search_space(space, RULE, attempt, known={own_point(space): None}, most=100)
    assert len(found.trials) == 7
    assert len({one.tried for one in found.trials}) == len(found.trials)
    assert search_space(space, RULE, attempt, known={}, most=100, over=lambda: True).trials == ()
    named = search_space(space, RULE, attempt, known={}, most=2, taken=frozenset({"tuned1"}))
    assert [one.recipe for one in named.trials] == ["tuned2", "tuned3"]  # a recipe of the user's has that name


def test_what_was_tried_under_a_name_of_its_own_is_not_tried_again():
    space = static_space(ORT_X86_VNNI, nodes=tuple("abcd"), smooths=False, equalizes=True)
    told = {"model": "m", "target": "t", "chosen": False, "reason": "", "value": 1.0, "reference": 1.0}
    names = ("int8", "fp16", "int8-keep1", "int8-keep2", "int8-keep4", "int8-equalized")
    tried = [SearchTrial(**told, recipe=name, size_bytes=number) for number, name in enumerate(names)]
    found = {describe_point(point): value for point, value in known_points(RULE, space, tried).items()}
    assert found == {
        "ranges=mse weights=max equalize=no": 0,
        "ranges=mse weights=max equalize=no keep_float=[a]": 2,
        "ranges=mse weights=max equalize=no keep_float=[a, b]": 3,
        "ranges=mse weights=max equalize=yes": 5,
    }


def test_a_point_becomes_stages():
    space = static_space(ORT_X86_VNNI, nodes=tuple("abcdefgh"), smooths=True, equalizes=True)
    assert len(space.nodes) == MOST_KEPT
    point = tuple(
        (
            name,
            {"ranges": "entropy", "weights": "mse", "alpha": "0.5", "equalize": "yes", "keep b": "yes"}.get(name, "no"),
        )
        for name, _ in space.choices
    )
    stages = {stage.name: stage.params for stage in recipe_at(space, point, "tuned1").stages}
    assert list(stages)[:3] == ["fold", "equalize", "calibrate"]
    assert stages["smooth"]["alpha"] == 0.5
    assert stages["quantize"] == {"ranges": "entropy", "weights": "mse", "keep_float": ["b"]}
    assert describe_point(point) == "ranges=entropy weights=mse alpha=0.5 equalize=yes keep_float=[b]"
    own = {stage.name: stage.params for stage in recipe_at(space, own_point(space), "own").stages}
    assert "equalize" not in own
    assert own["quantize"]["keep_float"] == []


def test_what_loses_too_much_is_worse_than_any_size():
    told = {"model": "m", "target": "t", "recipe": "r", "chosen": False, "reason": ""}
    good = SearchTrial(**told, value=0.9, reference=0.9, size_bytes=10**12)
    bad = SearchTrial(**told, value=0.9, reference=5.0, size_bytes=1)
    worse = SearchTrial(**told, value=0.9, reference=9.0, size_bytes=1)
    rule = Rule(metric=METRIC, margin=0.01, objective="size")
    assert cost(rule, good) < FAR < cost(rule, bad) < cost(rule, worse)
    assert cost(rule, SearchTrial(**told)) is None


@pytest.mark.parametrize(
    ("tune", "candidates", "left", "said"),
    [
        (None, (), 3, True),
        (None, ("int8",), 3, False),
        (True, ("int8",), 3, True),
        (False, (), 3, False),
        (None, (), 0, False),
    ],
)
def test_a_missing_optuna_is_said_and_no_error(monkeypatch, tune, candidates, left, said):
    monkeypatch.setattr(search, "is_installed", lambda: False)
    hunt = SimpleNamespace(
        wanted=SimpleNamespace(tune=tune, candidates=candidates),
        left=lambda _: left,
        rule=RULE,
        options=SimpleNamespace(profile=True),
        budget=SimpleNamespace(is_set=lambda: False),
        scheme=ORT_X86_VNNI,
        workplace=SimpleNamespace(pipeline=SimpleNamespace(data=SimpleNamespace(role=lambda name: name))),
    )
    found, warnings = search._sampled(hunt, [object()] * 6, None)
    assert found.trials == ()
    assert [warning.partition(" (pip")[0] for warning in warnings] == (
        ["optuna is not installed: the 6 enumerated candidates were tried"] if said else []
    )
