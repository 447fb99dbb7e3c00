"""The three keys of a cell: what is in each, and what is in none."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
from small_pipeline import write_small_pipeline

import qpipe
from qpipe.config import read_pipeline
from qpipe.errors import PluginError, TargetError
from qpipe.models import read_model
from qpipe.planning import expand
from qpipe.planning.expand import _resolved_for
from qpipe.planning.keys import PREPARING, changed, make_key
from qpipe.planning.sources import source_digest
from qpipe.plugins.hookspecs import hookimpl
from qpipe.plugins.loader import load_plugins
from qpipe.prepare.shapes import sets_shapes
from qpipe.quant.schemes import LITERT_INTEGER
from qpipe.records.pipeline import Pipeline, RecipeSpec
from qpipe.records.quantization import Override
from qpipe.records.target import Host, Limits, Target
from qpipe.records.tensors import Signature, TensorSpec
from qpipe.testing.fake import FakeBackend


class Boards:
    """The fake backend with one target, as a plugin of this process."""

    @hookimpl
    def qpipe_backends(self):
        return [FakeBackend()]

    @hookimpl
    def qpipe_targets(self):
        return [Target(name="board", backend="fake")]


REGISTRY = load_plugins((Boards(),))


@pytest.fixture
def pipeline(tmp_path) -> Pipeline:
    return read_pipeline(write_small_pipeline(tmp_path, targets=["board"], recipes=["int8", "dynamic"]), REGISTRY)


def cells(pipeline: Pipeline, *, profile: bool = True):
    model = read_model(pipeline.folder / "small.onnx", name="small", origin="small.onnx")
    return {cell.recipe.name: cell for cell in expand(pipeline, (model,), REGISTRY, profile=profile)}


def keys(cell) -> tuple[str, str, str]:
    return cell.prepare.digest, cell.build.digest, cell.measure.digest


def changes(pipeline: Pipeline, other: Pipeline, recipe: str = "int8", **options: bool) -> tuple[bool, bool, bool]:
    """Which of the three keys differ."""
    before, after = keys(cells(pipeline)[recipe]), keys(cells(other, **options)[recipe])
    return tuple(ours != theirs for ours, theirs in zip(before, after, strict=True))


def with_target(pipeline: Pipeline, **change: object) -> Pipeline:
    return replace(pipeline, targets=(replace(pipeline.targets[0], **change),))


def with_role(pipeline: Pipeline, role: str, **change: object) -> Pipeline:
    roles = tuple(replace(spec, **change) if spec.role == role else spec for spec in pipeline.data.roles)
    return replace(pipeline, data=replace(pipeline.data, roles=roles))


def test_the_baseline_comes_first_and_all_keys_are_different(pipeline):
    found = cells(pipeline)
    assert list(found) == ["none", "int8", "dynamic"]
    assert len({key for cell in found.values() for key in keys(cell)}) == 9
    assert {name: keys(cell) for name, cell in cells(pipeline).items()} == {n: keys(c) for n, c in found.items()}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: replace(p, gates=()), (False, False, False)),
        (lambda p: replace(p, promote=None, name="another"), (False, False, False)),
        (lambda p: with_target(p, summary="words", owner="me", limits=Limits(timeout_s=1.0)), (False, False, False)),
        (lambda p: with_role(p, "calibration", samples=32), (True, True, True)),
        (lambda p: with_role(p, "gate", samples=32), (False, False, True)),
        (lambda p: with_target(p, threads=2), (False, True, True)),
        (lambda p: with_target(p, options={"version": "2.0"}), (False, True, True)),
        (lambda p: with_target(p, options={"fingerprint": "another board"}), (False, True, True)),
        (lambda p: with_target(p, batch_sizes=(1, 8)), (False, False, True)),
        (lambda p: with_target(p, host=Host(kind="emulator", rows=64)), (False, True, True)),
        (lambda p: replace(p, metric="macro-f1"), (False, False, True)),
        (lambda p: replace(p, metric="top-3"), (False, False, True)),
        (lambda p: replace(p, timing=replace(p.timing, processes=9)), (False, False, True)),
    ],
)
def test_what_changes_which_key(pipeline, change, expected):
    assert changes(pipeline, change(pipeline)) == expected


def test_fewer_rows_on_an_emulator_need_no_other_engine(pipeline):
    some, more = (with_target(pipeline, host=Host(kind="emulator", rows=rows)) for rows in (64, 128))
    assert changes(some, more) == (False, False, True)


def test_a_recipe_without_calibration_does_not_know_the_calibration_rows(pipeline):
    other = with_role(pipeline, "calibration", samples=32)
    assert changes(pipeline, other, "dynamic") == (False, False, False)
    assert changes(pipeline, other, "none") == (False, False, False)


def test_shapes_that_an_engine_has_to_serve_are_known_from_rows(pipeline):
    """Rows at a time are the first axis of every engine; where another axis is free, calibration rows tell it."""
    wider = replace(pipeline, data=replace(pipeline.data, batch=32))
    assert changes(pipeline, wider, "none") == (True, True, True)
    free = TensorSpec(name="ids", dtype="int64", shape=("N", "L"))
    assert sets_shapes(Signature(inputs=(free,), outputs=()))
    assert not sets_shapes(Signature(inputs=(replace(free, shape=("N", 3)),), outputs=()))


def test_without_a_profile_the_protocol_is_in_no_key(pipeline):
    assert changes(pipeline, pipeline, profile=False) == (False, False, True)
    slow = replace(pipeline, timing=replace(pipeline.timing, processes=9))
    assert keys(cells(pipeline, profile=False)["int8"]) == keys(cells(slow, profile=False)["int8"])


def test_new_bytes_of_the_model_are_a_new_model(pipeline):
    before = keys(cells(pipeline)["none"])
    path: Path = pipeline.folder / "small.onnx"
    path.write_bytes(path.read_bytes().replace(b"small", b"smell"))
    assert all(ours != theirs for ours, theirs in zip(before, keys(cells(pipeline)["none"]), strict=True))


def test_a_demand_that_cannot_be_met_is_refused(pipeline):
    with pytest.raises(PluginError, match="fakee"):
        cells(with_target(pipeline, backend="fakee"))
    with pytest.raises(TargetError, match="no_such"):
        cells(with_target(pipeline, options={"no_such": 1}))


def test_every_source_that_shapes_a_prepared_graph_is_in_its_key():
    each = [source_digest(place) for place in PREPARING]
    assert len({*each, source_digest(), source_digest(*PREPARING)}) == len(PREPARING) + 2
    defaults = Path(inspect.getfile(Override)).relative_to(Path(qpipe.__file__).parent)
    assert defaults.as_posix().startswith(PREPARING)


def test_changed_names_the_ingredients_in_order():
    before = make_key(("model", "a"), ("recipe", "b"), ("device", "c"))
    after = make_key(("model", "a"), ("recipe", "x"), ("device", "y"), ("metric", "new"))
    assert changed(before.ingredients, after.ingredients) == ("recipe", "device", "metric")
    assert changed(before.ingredients, before.ingredients) == ()
    assert before.digest != make_key(("recipe", "b"), ("model", "a"), ("device", "c")).digest


def test_a_recipe_for_other_targets_makes_no_cell(pipeline):
    def asked(*targets):
        recipes = (pipeline.recipes[0], replace(pipeline.recipes[1], targets=targets))
        return replace(pipeline, recipes=recipes)

    assert list(cells(asked("other"))) == ["none", "int8"]
    assert keys(cells(asked("board"))["dynamic"]) == keys(cells(pipeline)["dynamic"])


def test_a_recipe_without_kernels_names_the_target_and_what_it_can_run():
    with pytest.raises(TargetError, match="board cannot run recipe 'dynamic': scheme 'litert-integer' has no") as told:
        _resolved_for(Target(name="board", backend="b"), RecipeSpec(name="dynamic"), LITERT_INTEGER)
    assert told.value.hint.startswith("it can run none, int8, int8-float-stem, fp16; ")
    assert "{name: dynamic, targets: […]}" in told.value.hint
