"""Stage `equalize` inside a recipe, and the candidate that a search makes with it."""

import numpy as np
import pytest
from networks import write_network

from qpipe.errors import ConfigError, QuantizationError
from qpipe.models import read_model
from qpipe.planning.candidates import equalized_candidates
from qpipe.plugins.stage import Draft
from qpipe.prepare import builtin_recipe, prepare
from qpipe.prepare.run import run_stages
from qpipe.quant.graph import constant, open_graph
from qpipe.quant.schemes import ORT_X86_VNNI, TENSORRT
from qpipe.records.pipeline import RecipeSpec
from qpipe.records.recipe import Recipe, StageSpec
from qpipe.testing.progress import Silent

UNEVEN = np.exp(np.linspace(-4, 4, 16)).reshape(-1, 1, 1, 1)


def make_model(tmp_path, between):
    """Two convolutions with very uneven channels, and what stands between them."""
    rng = np.random.default_rng(0)
    body = (
        f"c = Conv<kernel_shape=[3,3]>(x, w0) r = {between}(c) d = Conv<kernel_shape=[3,3]>(r, w1) "
        "p = GlobalAveragePool(d) y = Flatten(p)"
    )
    arrays = {
        "w0": rng.standard_normal((16, 4, 3, 3)) * UNEVEN,
        "w1": rng.standard_normal((8, 16, 3, 3)) / UNEVEN.reshape(1, -1, 1, 1),
    }
    floats = {name: array.astype(np.float32) for name, array in arrays.items()}
    path = write_network(tmp_path / "model.onnx", "(float[N,4,6,6] x) => (float[N,8] y)", body, floats)
    return read_model(path, name="uneven", origin="")


def calibration():
    yield {"x": np.random.default_rng(1).standard_normal((32, 4, 6, 6)).astype(np.float32)}


def run(model, stages, folder) -> Draft:
    specs = tuple(stage if isinstance(stage, StageSpec) else StageSpec(name=stage) for stage in stages)
    return run_stages(model, Recipe(name="r", stages=specs), TENSORRT, calibration, folder, None, Silent())


def unevenness(path):
    """Largest over smallest magnitude of the first convolution's output channels."""
    weight = np.abs(constant(next(iter(open_graph(path).graph)).inputs[1])).reshape(16, -1).max(axis=1)
    return weight.max() / weight.min()


@pytest.mark.parametrize(
    "stages",
    [
        ("equalize",),
        ("calibrate", StageSpec(name="equalize", params={"by": "activations"})),
        (
            StageSpec(name="calibrate", params={"channels": True}),
            StageSpec(name="equalize", params={"by": "activations", "ranges": "percentile"}),
        ),
    ],
    ids=["weights", "activations", "percentiles"],
)
def test_uneven_channels_become_even(tmp_path, stages):
    model = make_model(tmp_path, "Relu")
    draft = run(model, stages, tmp_path / "w")
    assert unevenness(model.file.path) > 1000
    assert unevenness(draft.graph.path) < 20
    assert draft.statistics is None, "what was observed before is not true of the new graph"


def test_equalizing_helps_where_weights_have_one_scale(tmp_path):
    import onnxruntime as ort

    model = make_model(tmp_path, "Relu")
    feed = next(calibration())
    reference = ort.InferenceSession(model.file.path).run(None, feed)[0]

    def error(*before):
        stages = (*before, StageSpec(name="calibrate"), StageSpec(name="quantize", params={"overrides": per_tensor}))
        recipe = Recipe(name="r", stages=stages)
        folder = tmp_path / f"w{len(before)}"
        done = prepare(model, recipe, ORT_X86_VNNI, calibration, folder, None, Silent())
        return np.square(ort.InferenceSession(done.qdq.path).run(None, feed)[0] - reference).sum()

    per_tensor = [{"match": "op:Conv", "per_channel": False}]
    assert error(StageSpec(name="equalize")) < 0.1 * error()


def test_what_cannot_be_evened_out_is_left_or_refused(tmp_path):
    model = make_model(tmp_path, "Sigmoid")
    assert run(model, ("equalize",), tmp_path / "w").graph == model.file
    needed = StageSpec(name="equalize", params={"required": True})
    with pytest.raises(QuantizationError, match="no two layers"):
        run(model, (needed,), tmp_path / "v")


def test_activations_need_a_pass_before_and_after(tmp_path):
    model = make_model(tmp_path, "Relu")
    by = StageSpec(name="equalize", params={"by": "activations"})
    with pytest.raises(ConfigError, match="has no statistics"):
        run(model, (by,), tmp_path / "w")
    with pytest.raises(ConfigError, match="'quantize' has no statistics"):
        run(model, ("calibrate", by, "quantize"), tmp_path / "v")


def test_a_search_tries_the_static_recipe_equalized_before_it_is_observed():
    (even,) = equalized_candidates(RecipeSpec(name="int8"), ORT_X86_VNNI)
    plain = builtin_recipe("int8", ORT_X86_VNNI).stages
    names = [stage.name for stage in even.stages]
    assert even.name == "int8-equalized"
    assert names.index("equalize") == names.index("calibrate") - 1
    assert tuple(stage for stage in even.stages if stage.name != "equalize") == plain
    assert equalized_candidates(even, ORT_X86_VNNI) == ()
    assert equalized_candidates(RecipeSpec(name="dynamic"), ORT_X86_VNNI) == ()
