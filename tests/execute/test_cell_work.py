"""What a cell's child makes, and under which keys it is found again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from qpipe.errors import ModelError
from qpipe.execute.work.cell import build_engine, prepare_model
from qpipe.execute.work.pairs import load_pair
from qpipe.execute.work.prepared import load_prepared
from qpipe.models import digest_onnx
from qpipe.plugins.registry import Registry
from qpipe.records.cell import Key
from qpipe.records.evidence import NotMeasured
from qpipe.testing.fake import FakeBackend
from qpipe.testing.models import small_rows


def keys(place, space):
    return {path.stem for path in (place.store.root / "keys" / space).glob("*.json")}


def prepared(place, cell):
    place.work(cell)
    return load_prepared(place.store.made_once("prepared", cell.prepare.digest, _made_already), cell.model.file)


def _made_already(folder):
    raise AssertionError(folder)


def input_range(found):
    """Of the model's input, as the plan quantizes it."""
    return next((one.low, one.high) for one in found.plan.activations if one.tensor == "image")


def test_another_protocol_evaluates_nothing_again(place):
    cell, again = (place.cells(profile=profile)["int8"] for profile in (True, False))
    assert cell.measure.digest != again.measure.digest
    assert place.work(cell) == place.work(again)
    assert len(keys(place, "evaluation")) == 1


def test_an_engine_that_came_out_otherwise_is_judged_itself(place, monkeypatch):
    """A builder that times kernels gives another engine where the first one went: its verdict is not that one's."""
    honest = FakeBackend.build

    def build(self, prepared, target, workdir, progress):
        built = honest(self, prepared, target, workdir, progress)
        model = onnx.load(workdir / "model.onnx")
        model.doc_string = "another kernel"
        onnx.save(model, workdir / "model.onnx")
        return built

    cell = place.cells()["int8"]
    first = place.work(cell)
    (place.store.root / "keys" / "engine" / f"{cell.build.digest}.json").unlink()
    monkeypatch.setattr(FakeBackend, "build", build)
    assert place.work(cell).engine != first.engine
    assert len(keys(place, "evaluation")) == 2


def test_a_fresh_cell_is_made_again_in_every_part(place):
    cell = place.cells()["int8"]
    place.work(cell)
    before = {space: keys(place, space) for space in ("prepared", "engine", "evaluation", "copies")}
    place.work(cell, fresh="-x1")
    assert {space: len(keys(place, space) - before[space]) for space in before} == dict.fromkeys(before, 1)


def test_ranges_are_those_of_the_calibration_rows_that_a_cell_was_planned_with(place):
    rows = {factor: small_rows(4, 7) * np.float32(factor) for factor in (1, 3)}
    for factor, image in rows.items():
        found = prepared(place, place.cells(rows={"calibration": {"image": image}})["int8"])
        assert input_range(found) == pytest.approx((image.min(), image.max()), rel=0.02), factor
        assert found.shapes[0].high == (16, 1, 8, 8)  # rows that an engine has to serve at a time


def test_statistics_are_found_again_under_the_same_code_of_the_stage_alone(place, monkeypatch):
    cell = place.cells()["int8"]
    found = []
    for number, code in enumerate(("aa", "aa", "bb")):
        monkeypatch.setattr(Registry, "code_of_stage", lambda *_, code=code: code)
        prepare_model(place.bench(replace(cell, prepare=Key(digest=f"recipe-{number}", ingredients=()))))
        found.append(len(keys(place, "statistics")))
    assert found == [found[0], found[0], 2 * found[0]]


def test_a_model_that_changed_after_it_was_planned_leaves_nothing(place):
    cell = place.cells()["int8"]
    model = onnx.load(place.folder / "small.onnx")
    weight = numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight * 2, model.graph.initializer[0].name))
    onnx.save(model, place.folder / "small.onnx")
    with pytest.raises(ModelError, match="changed after the run was planned"):
        place.work(cell)
    assert not keys(place, "prepared")
    assert not keys(place, "engine")


def test_an_engine_that_cannot_run_here_is_kept_and_its_evaluation_is_asked_for_again(place):
    outcome = place.work(place.cells(run_unavailable="no board")["int8"])
    assert load_pair(place.store.folder(outcome.evaluation)).engine == NotMeasured(
        reason="no board", hint="the target's options say so"
    )
    assert keys(place, "engine")
    assert not keys(place, "evaluation")


def moved(cell, path):
    """The cell of somebody whose copy of the same model lies elsewhere."""
    file = replace(cell.model.file, path=path)
    assert digest_onnx(path).digest == file.digest
    return replace(cell, model=replace(cell.model, file=file))


@pytest.mark.parametrize("recipe", ["none", "dynamic"])
def test_a_model_that_was_moved_is_found_where_it_is_now(place, recipe):
    cell = place.cells(pipeline={"recipes": [recipe]})[recipe]
    prepare_model(place.bench(cell))
    there = place.folder / "small.onnx"
    elsewhere = place.folder / "moved" / "m.onnx"
    elsewhere.parent.mkdir()
    wanted = there.read_bytes()
    elsewhere.write_bytes(wanted)
    there.write_bytes(b"another model")
    now = moved(cell, elsewhere)
    assert prepare_model(place.bench(now)).graph.path.read_bytes() == wanted
    assert (
        str(place.folder)
        not in (place.store.root / "objects")
        .joinpath(
            json.loads(next((place.store.root / "keys" / "prepared").iterdir()).read_text())["object"], "prepared.json"
        )
        .read_text()
    )


def test_an_engine_of_a_model_that_changed_meanwhile_is_not_kept(place):
    cell = place.cells(pipeline={"recipes": ["none"]})["none"]
    prepare_model(place.bench(cell))  # an earlier run
    model = onnx.load(place.folder / "small.onnx")
    model.graph.doc_string = "another"
    onnx.save(model, place.folder / "small.onnx")
    with pytest.raises(ModelError, match="changed after the run was planned"):
        build_engine(place.bench(cell))
    assert not keys(place, "engine")
