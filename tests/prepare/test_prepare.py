"""Recipes from end to end on a small network: every built-in recipe loads, runs and is close."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import sqnr_db, write_network
from onnx import numpy_helper

from qpipe.errors import ConfigError, DataError, QuantizationError, TargetError
from qpipe.models import read_model
from qpipe.plugins.stage import StageType
from qpipe.prepare import builtin_recipe, builtin_stages, prepare
from qpipe.prepare.onnxfile import describe
from qpipe.prepare.run import read_params
from qpipe.prepare.stages.quantize import NoParams, QuantizeParams
from qpipe.quant.graph import open_graph
from qpipe.quant.schemes import FLOAT, LITERT, ORT_ARM64, ORT_X86_AVX2, ORT_X86_VNNI, TENSORRT
from qpipe.records.quantization import Override
from qpipe.records.recipe import BUILTIN_RECIPES, Recipe, StageSpec


class Counting:
    def __init__(self):
        self.steps = []
        self.rows = 0

    def step(self, name, *, total=None):
        self.steps.append((name, total))

    def advance(self, amount=1):
        self.rows += amount


@pytest.fixture
def model(tmp_path):
    rng = np.random.default_rng(0)
    body = (
        "c = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w) n = BatchNormalization(c, s, t, m, v) r = Relu(n) "
        "g = GlobalAveragePool(r) f = Flatten(g) h = Gemm<transB=1>(f, k, b) a = Relu(h) y = MatMul(a, o)"
    )
    shapes = {"w": (32, 3, 3, 3), "s": (32,), "t": (32,), "m": (32,), "k": (32, 32), "b": (32,), "o": (32, 16)}
    arrays = {name: (rng.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}
    arrays["v"] = np.full(32, 0.5, np.float32)
    path = write_network(tmp_path / "model.onnx", "(float[N,3,8,8] x) => (float[N,16] y)", body, arrays)
    return read_model(path, name="tiny", origin="")


def rows():
    return np.random.default_rng(1).standard_normal((48, 3, 8, 8)).astype(np.float32)


def calibration():
    data = rows()
    for start in range(0, 48, 16):
        yield {"x": data[start : start + 16]}


def outputs(path):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": rows()})[0]


LEAST_DB = {
    "none": 200,
    "int8": 25,
    "int8-float-stem": 25,
    "dynamic": 30,
    "fp16": 50,
    "int4": 10,
    "weight-only-int8": 35,
}


@pytest.mark.parametrize("name", sorted(LEAST_DB))
def test_builtin_recipe(model, tmp_path, name):
    prepared = prepare(
        model, builtin_recipe(name, ORT_X86_VNNI), ORT_X86_VNNI, calibration, tmp_path / "work", None, Counting()
    )
    assert sqnr_db(outputs(model.file.path), outputs(prepared.deployable.path)) >= LEAST_DB[name]
    assert prepared.signature == model.signature
    assert prepared.shapes[0].high == (16, 3, 8, 8)
    assert prepared.shapes[0].low == (1, 3, 8, 8)
    assert (prepared.plan is None) == (name in {"none", "fp16"})
    if name == "none":
        assert prepared.graph == model.file


@pytest.mark.parametrize("scheme", [ORT_X86_VNNI, ORT_X86_AVX2, ORT_ARM64, TENSORRT, LITERT], ids=lambda s: s.name)
def test_fp16_computes_in_float16_where_the_scheme_has_such_kernels(model, tmp_path, scheme):
    prepared = prepare(model, builtin_recipe("fp16", scheme), scheme, calibration, tmp_path / "w", None, Counting())
    graph = onnx.load(prepared.deployable.path).graph
    halves = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    convolved = {name for node in graph.node if node.op_type == "Conv" for name in node.input}
    assert halves
    assert bool(halves & convolved) == ("float16" in scheme.float_types)


@pytest.mark.parametrize("scheme", [ORT_X86_VNNI, ORT_X86_AVX2, ORT_ARM64, TENSORRT, LITERT], ids=lambda s: s.name)
def test_int8_for_every_scheme(model, tmp_path, scheme):
    prepared = prepare(model, builtin_recipe("int8", scheme), scheme, calibration, tmp_path / "w", None, Counting())
    assert sqnr_db(outputs(model.file.path), outputs(prepared.qdq.path)) >= 20
    # corrections are in the float graph: toolchains that quantize by themselves lose nothing
    assert sqnr_db(outputs(model.file.path), outputs(prepared.graph.path)) >= 30
    graph = onnx.load(prepared.qdq.path).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    integers = Counter(types[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear")
    wanted = onnx.TensorProto.UINT8 if scheme.activation == "uint8" else onnx.TensorProto.INT8
    assert set(integers) == {wanted}
    biases = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT32]
    assert bool(biases) == scheme.quantize_bias
    largest = max(
        np.abs(numpy_helper.to_array(tensor).astype(int)).max()
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    )
    assert largest == (63 if scheme.weight_bits == 7 else 127)


def test_tensorrt_has_symmetric_pairs_on_inputs_alone(model, tmp_path):
    prepared = prepare(model, builtin_recipe("int8", TENSORRT), TENSORRT, calibration, tmp_path / "w", None, Counting())
    graph = onnx.load(prepared.qdq.path).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            assert not arrays[node.input[2]].any()
            assert producers.get(node.input[0], node).op_type not in {"Conv", "Gemm", "MatMul"}


def test_a_model_is_folded_and_observed_once_for_several_recipes(model, tmp_path):
    made = {}

    def cache(key, make):
        if key not in made:
            made[key] = tmp_path / "cache" / key
            made[key].mkdir(parents=True)
            make(made[key])
        return made[key]

    progress = Counting()
    for number, ranges in enumerate(("minmax", "mse", "entropy", "percentile")):
        stages = (
            StageSpec(name="fold"),
            StageSpec(name="calibrate"),
            StageSpec(name="quantize", params={"ranges": ranges}),
        )
        recipe = Recipe(name=ranges, stages=stages)
        folder = tmp_path / str(number)
        made_of = prepare(model, recipe, ORT_X86_VNNI, calibration, folder, cache, progress, calibration_digest="d")
        assert made_of.graph.path.is_relative_to(folder), "a recipe's graph lies among those that recipes share"
        assert made_of.graph.digest == describe(made_of.graph.path).digest
    assert len(made) == 3  # the folded graph, statistics, and whether the image's pixels stand on a grid
    assert progress.rows == 48


def test_float_target_refuses_int8():
    with pytest.raises(TargetError, match="no integer kernels"):
        builtin_recipe("int8", FLOAT)


@pytest.mark.parametrize("name", ["dynamic", "bf16", "int4"])
def test_recipes_without_kernels_are_refused(name):
    with pytest.raises(TargetError):
        builtin_recipe(name, LITERT)


def test_unknown_recipe_lists_the_known_ones():
    with pytest.raises(TargetError) as caught:
        builtin_recipe("int7", ORT_X86_VNNI)
    assert all(name in caught.value.hint for name in BUILTIN_RECIPES)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (StageSpec(name="quantise"), "does not exist"),
        (StageSpec(name="quantize", params={"method": "mse"}), "no parameter 'method'"),
        (StageSpec(name="quantize", params={"ranges": "mean"}), "ranges: \"mean\" is not one of 'minmax'"),
        (StageSpec(name="quantize", params={"overrides": [{"keep_float": True}]}), "Override lacks match"),
        (StageSpec(name="quantize"), "no statistics"),
        (StageSpec(name="correct-bias"), "no plan"),
    ],
)
def test_mistakes_in_recipes_are_told(model, tmp_path, spec, message):
    with pytest.raises(ConfigError, match=message):
        prepare(model, Recipe(name="r", stages=(spec,)), ORT_X86_VNNI, calibration, tmp_path / "w", None, Counting())


def test_parameters_are_read_as_their_dataclass_with_what_stands_in_it():
    params = {"percentile": 99, "keep_float": ["stem"], "overrides": [{"match": "op:Add", "per_channel": False}]}
    stage = next(stage for stage in builtin_stages() if stage.name == "quantize")
    assert read_params(stage, StageSpec(name="quantize", params=params)) == QuantizeParams(
        percentile=99.0, keep_float=("stem",), overrides=(Override(match="op:Add", per_channel=False),)
    )


def test_exceptions_that_no_node_has_the_name_of_are_told(model, tmp_path):
    """They change nothing, and a name is soon mistyped."""
    name = open_graph(model.file.path).graph[-1].name
    params = {
        "keep_float": [f"{name}x", "op:Gem", name, "stem"],
        "overrides": [{"match": "head9", "per_channel": False}],
    }
    recipe = Recipe(name="mine", stages=(StageSpec(name="calibrate"), StageSpec(name="quantize", params=params)))
    found = [
        one
        for one in prepare(model, recipe, ORT_X86_VNNI, calibration, tmp_path / "w", None, Counting()).remarks
        if one.kind == "no-node"
    ]
    assert [one.subject for one in found] == [f"{name}x", "op:Gem", "head9"]
    assert found[0].line == f"'{name}x': no node that `quantize` gets has this name; did you mean {name!r}?"
    assert all(one.warns and not one.of_calibration for one in found)


def test_recipe_without_calibration_rows(model, tmp_path):
    recipe = builtin_recipe("int8", ORT_X86_VNNI)
    with pytest.raises(DataError, match="no rows"):
        prepare(model, recipe, ORT_X86_VNNI, lambda: iter([]), tmp_path / "w", None, Counting())


def test_without_calibration_rows_an_engine_serves_the_rows_at_a_time(model, tmp_path):
    recipe = builtin_recipe("none", ORT_X86_VNNI)
    made = prepare(model, recipe, ORT_X86_VNNI, lambda: iter([]), tmp_path / "w", None, Counting(), rows=24)
    assert (made.shapes[0].low, made.shapes[0].high) == ((1, 3, 8, 8), (24, 3, 8, 8))


def test_stages_have_unique_names_and_light_imports():
    names = [stage.name for stage in builtin_stages()]
    assert len(set(names)) == len(names)
    source = "\n".join(path.read_text() for path in Path(str(prepare.__globals__["__file__"])).parent.rglob("*.py"))
    heads = [line for line in source.splitlines() if line.startswith(("import onnx", "from onnx", "import numpy"))]
    assert heads == []


def test_weight_only_block_size_is_checked(model, tmp_path):
    recipe = Recipe(name="r", stages=(StageSpec(name="weight-only", params={"block_size": 24}),))
    with pytest.raises(QuantizationError, match="block size 24"):
        prepare(model, recipe, ORT_X86_VNNI, calibration, tmp_path / "w", None, Counting())


def test_gptq_does_not_pretend_to_round_to_nf4(model, tmp_path):
    stage = StageSpec(name="weight-only", params={"code": "nf4", "rounding": "gptq"})
    with pytest.raises(QuantizationError, match="evenly spaced"):
        prepare(model, Recipe(name="r", stages=(stage,)), ORT_X86_VNNI, calibration, tmp_path / "w", None, Counting())


def test_gptq_uses_the_calibration_vectors(model, tmp_path):
    found = {}
    for rounding in ("nearest", "gptq"):
        stages = (
            StageSpec(name="calibrate"),
            StageSpec(name="weight-only", params={"rounding": rounding, "block_size": 16}),
        )
        recipe = Recipe(name="r", stages=stages)
        made = prepare(model, recipe, ORT_X86_VNNI, calibration, tmp_path / rounding, None, Counting())
        found[rounding] = sqnr_db(outputs(model.file.path), outputs(made.deployable.path))
    assert found["gptq"] > found["nearest"]


def kept(folder):
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", ["int8", "fp16", "int4", "dynamic"])
def test_what_is_kept_is_what_is_read(model, tmp_path, name):
    """A graph that the next stage has replaced is a whole model, once for every recipe."""
    work = tmp_path / "work"
    stages = (StageSpec(name="fold"), *builtin_recipe(name, ORT_X86_VNNI).stages)
    found = prepare(
        model, Recipe(name=name, stages=stages), ORT_X86_VNNI, calibration, work, None, Counting(),
        calibration_digest="rows",
    )  # fmt: skip
    wanted = {file.path.relative_to(work) for file in (found.graph, found.qdq) if file is not None}
    assert kept(work) == {str(path) for path in wanted}
    assert wanted


def test_graphs_that_a_stage_shares_are_copied_among_the_own_ones(model, tmp_path):
    shared = tmp_path / "shared"

    def apply(draft, _params, context):
        def make(folder):
            (folder / "g.onnx").write_bytes(draft.graph.path.read_bytes())

        file = context.onnx_file(context.cached("key", make) / "g.onnx")
        return replace(draft, graph=file, qdq=file)

    def cache(_key, make):
        shared.mkdir()
        make(shared)
        return shared

    stage = StageType(name="mine", summary="", params=NoParams, apply=apply)
    recipe = Recipe(name="mine", stages=(StageSpec(name="mine"),))
    found = prepare(
        model, recipe, ORT_X86_VNNI, calibration, tmp_path / "work", cache, Counting(),
        calibration_digest="rows", stages=(stage,),
    )  # fmt: skip
    assert found.qdq == found.graph
    assert found.graph.path.is_relative_to(tmp_path / "work")
    assert found.graph.path.read_bytes() == model.file.path.read_bytes()
