"""What a plan finds out from the headers of files: not after minutes of work, and not in the first cell."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from small_pipeline import write_small_pipeline

from qpipe.errors import DataError, ModelError
from qpipe.flow.options import RunOptions
from qpipe.flow.preflight.forecast import forecast
from qpipe.flow.preflight.operators import lacking
from qpipe.flow.preflight.probes import try_labels
from qpipe.flow.workplace import open_workplace
from qpipe.plugins.hookspecs import hookimpl
from qpipe.plugins.loader import load_plugins
from qpipe.plugins.metric import Metric
from qpipe.plugins.stage import StageType
from qpipe.prepare.stages.quantize import NoParams
from qpipe.records.recipe import StageSpec


def _plan(folder, **changed: object):
    path = write_small_pipeline(folder, targets=["cpu-local"], recipes=["int8"])
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "data": {**document["data"], **changed}}))
    return lambda: forecast(open_workplace(path, RunOptions(profile=False)))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"label": "lable"}, r"gate\.npz\): no label column 'lable'; did you mean 'label'\?"),
        ({"output": "nothing"}, r"data\.output: the model has no output 'nothing'"),
        ({"inputs": {"picture": "image"}}, r"calibration\.npz\): no column 'picture'"),
    ],
)
def test_a_plan_refuses_what_a_run_would(changed, words, tmp_path):
    with pytest.raises(DataError, match=words):
        _plan(tmp_path, **changed)()


def _without_products(folder, *recipes, also=()):
    """The small pipeline with a model of the same border that has nothing but a mean in it, and `also` these."""
    path = write_small_pipeline(folder, targets=["cpu-local"], recipes=list(recipes))
    model = onnx.load(folder / "small.onnx")
    image, scores = model.graph.input[0], model.graph.output[0]
    mean = onnx.helper.make_node("ReduceMean", [image.name], [scores.name], axes=[2, 3], keepdims=0)
    graph = onnx.helper.make_graph([*also, mean], "mean", [image], [scores])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)]), folder / "small.onnx")
    return open_workplace(path, RunOptions(profile=False))


def test_a_plan_refuses_a_model_in_which_no_recipe_finds_anything(tmp_path):
    with pytest.raises(ModelError, match="small has nothing that recipe 'int8' could quantize: it has none of Conv,"):
        forecast(_without_products(tmp_path, "int8", "dynamic"))


def test_a_plan_says_that_a_model_is_quantized_already(tmp_path):
    """One of QLinearConv and its like was called a float model that has no Conv."""
    integers = onnx.helper.make_node("DynamicQuantizeLinear", ["image"], ["q", "scale", "zero"])
    with pytest.raises(ModelError, match=r"it is quantized already \(DynamicQuantizeLinear\)") as raised:
        forecast(_without_products(tmp_path, "int8", also=[integers]))
    assert raised.value.hint.startswith("give the float model")


def test_a_plan_says_which_recipe_finds_nothing(tmp_path):
    notes = {line.cell.split("/")[1]: line.note for line in forecast(_without_products(tmp_path, "int8", "fp16"))}
    assert notes["int8"].startswith("nothing to quantize: it has none of Conv,")
    assert notes["fp16"] == "first run"


def test_a_stage_of_a_plugin_may_make_what_a_later_one_looks_for(tmp_path):
    """A forest as matrix products: the model was refused."""

    class Forests:
        @hookimpl
        def qpipe_stages(self):
            yield StageType(name="as-products", summary="", params=NoParams, apply=lambda draft, _, __: draft)

    place = _without_products(tmp_path, "int8")
    registry = load_plugins((Forests(),))
    given = next(cell for cell in place.cells if cell.recipe.stages)
    made = replace(given, recipe=replace(given.recipe, stages=(StageSpec(name="as-products"), *given.recipe.stages)))
    assert lacking(given, registry) == "it has none of Conv, Gemm, MatMul"
    assert lacking(made, registry) == ""


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (lambda image: image.transpose(0, 2, 3, 1), "channels first: save image.transpose(0, 3, 1, 2)"),
        (lambda image: image[:, :, :-1], "each row has the shape that the model takes"),
    ],
)
def test_a_plan_says_how_rows_of_another_layout_are_saved(rows, words, tmp_path):
    plan = _plan(tmp_path)
    with np.load(tmp_path / "gate.npz") as gate:
        np.savez(tmp_path / "gate.npz", image=rows(gate["image"]), label=gate["label"])
    with pytest.raises(DataError) as raised:
        plan()
    assert words in raised.value.hint


def test_a_plan_reads_the_labels_of_a_file(tmp_path):
    plan = _plan(tmp_path)
    assert len(plan()) == 2
    with np.load(tmp_path / "gate.npz") as gate:
        np.savez(tmp_path / "gate.npz", image=gate["image"], label=gate["label"] + 1000)
    with pytest.raises(DataError, match=r"gate\.npz\): label 1000 of row 0 is out of range"):
        plan()


def test_a_metric_of_a_plugin_is_left_for_the_cells(tmp_path):
    """It may look at several outputs, or refuse those that no model would give."""

    class Detection:
        @hookimpl
        def qpipe_metrics(self):
            yield Metric(name="boxes", summary="", kind="corpus", measure=refuse, aggregate=float)

    def refuse(_rows):
        raise DataError("there are no boxes")

    file = write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=["int8"])
    found = open_workplace(file, RunOptions(profile=False))
    registry = load_plugins((Detection(),))
    try_labels(replace(found, registry=registry, pipeline=replace(found.pipeline, metric="boxes")))


def test_a_plan_calls_no_function_of_the_users(tmp_path):
    (tmp_path / "my_rows.py").write_text("def gate():\n    raise RuntimeError('called')\n")
    assert len(_plan(tmp_path, gate={"fn": "my_rows:gate"})()) == 2
