import json
import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpipe.config import pipeline_schema, read_gates, read_pipeline
from qpipe.errors import ConfigError
from qpipe.records.cell import Timing
from qpipe.records.data import Preprocess, RoleSpec
from qpipe.records.pipeline import ModelSource, PromoteSpec, RecipeSpec, TrackingSpec
from qpipe.records.recipe import StageSpec
from qpipe.records.target import Limits

FULL = """\
name: digits
model: {path: digits.onnx}
task: classification
data:
  inputs: {image: input}
  label: label
  calibration: {npz: calib.npz, samples: 256, seed: 0}
  search:      {npz: search.npz}
  gate:        {npz: gate.npz, slices: [label], group: null}
  preprocess:  {image: {scale: 0.0625, mean: [0.5], std: 0.25}}
targets: [cpu-local]
recipes: [int8]
gates:
  quality: {metric: accuracy, margin: 0.01, confidence: 0.95}
  slices:  {by: label, margin: 0.10}
  speedup: {at_least: 1.2, required: false}
  size:    {at_most_ratio: 0.35}
promote: {model: "{model}-{target}", alias: champion}
tracking: {uri: null, experiment: digits}
"""


@pytest.fixture
def read(tmp_path, names):
    def of(text, registry=names):
        path = tmp_path / "p.yaml"
        path.write_text(text)
        return read_pipeline(path, registry)

    return of


def changed(old, new):
    assert old in FULL
    return FULL.replace(old, new)


def test_the_whole_file(read, tmp_path):
    got = read(FULL)
    assert got.name == "digits"
    assert got.folder == tmp_path
    assert got.models == (ModelSource(name="digits", path=tmp_path / "digits.onnx"),)
    assert (got.task, got.metric) == ("classification", "accuracy")
    assert got.data.inputs == (("image", "input"),)
    assert got.data.preprocess == (Preprocess(column="image", scale=0.0625, mean=(0.5,), std=(0.25,)),)
    assert got.data.roles == (
        RoleSpec(role="calibration", npz=tmp_path / "calib.npz", samples=256),
        RoleSpec(role="search", npz=tmp_path / "search.npz"),
        RoleSpec(role="gate", npz=tmp_path / "gate.npz", slices=("label",)),
    )
    assert [target.name for target in got.targets] == ["cpu-local"]
    assert got.recipes == (RecipeSpec(name="int8"),)
    assert [(gate.name, gate.type, gate.required) for gate in got.gates] == [
        ("quality", "quality", True),
        ("slices", "slices", True),
        ("speedup", "speedup", False),
        ("size", "size", True),
    ]
    assert got.gates[0].params == {"metric": "accuracy", "margin": 0.01, "confidence": 0.95}
    assert got.promote == PromoteSpec()
    assert got.tracking == TrackingSpec(experiment="digits")
    assert (got.timing, got.search, got.store) == (Timing(), None, None)


def test_stages_variants_gates_and_anchors(read):
    text = changed(
        "recipes: [int8]", "recipes:\n- none\n- {name: mine, stages: [fold, {quantize: {range: mse, skip: [a]}}]}"
    )
    text = text.replace(
        "targets: [cpu-local]",
        "targets:\n- &a cpu-local\n- {name: two, base: *a, threads: 2, batch_sizes: [1, 8], limits: {timeout_s: 9}}",
    )
    text = text.replace(
        "  size:    {at_most_ratio: 0.35}",
        "  finite:\n  big: {type: size, at_most_bytes: 100, accept: [estimated], targets: [two], recipes: [mine]}",
    )
    got = read(text + "profile: {processes: 3, min_seconds: 1e-1}\nstore: /tmp/s\n")
    assert got.recipes[0] == RecipeSpec(name="none")
    assert got.recipes[1] == RecipeSpec(
        name="mine", stages=(StageSpec(name="fold"), StageSpec(name="quantize", params={"range": "mse", "skip": ["a"]}))
    )
    two = got.targets[1]
    assert (two.name, two.backend, two.threads, two.batch_sizes) == ("two", "onnxruntime", 2, (1, 8))
    assert two.limits == Limits(timeout_s=9)
    assert got.gates[3].params == {}
    big = got.gates[4]
    assert (big.type, big.params, big.accept, big.targets, big.recipes) == (
        *("size", {"at_most_bytes": 100}, ("estimated",), ("two",), ("mine",)),
    )
    assert not big.applies(recipe="mine", target="cpu-local")
    assert got.timing == replace(Timing(), processes=3, min_seconds=0.1)
    assert got.store == "/tmp/s"


def test_a_recipe_for_some_targets(read):
    got = read(changed("recipes: [int8]", "recipes: [int8, {name: dynamic, targets: [cpu-local]}]"))
    assert [(spec.name, spec.stages, spec.targets) for spec in got.recipes] == [
        ("int8", None, None),
        ("dynamic", None, ("cpu-local",)),
    ]
    assert [got.recipes[1].is_for(name) for name in ("cpu-local", "x86-litert")] == [True, False]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("{name: dynamic, targets: [cpu-locl]}", "the pipeline has no target 'cpu-locl'; did you mean 'cpu-local'?"),
        ("{name: dynamik, targets: [cpu-local]}", "unknown recipe 'dynamik'; did you mean 'dynamic'?"),
        ("{name: dynamic, targets: []}", "recipes[0].targets: "),
        ("{name: int8, stages: [fold], targets: [cpu-local]}", "recipe 'int8' is built in"),
        ("{search: {budget: {trials: 1}, candidates: [{name: int8, targets: [cpu-local]}]}}", "a search tries"),
    ],
)
def test_a_recipe_for_targets_that_are_none(read, recipe, message):
    with pytest.raises(ConfigError) as error:
        read(changed("recipes: [int8]", f"recipes: [{recipe}]"))
    assert message in error.value.message


def test_a_candidate_that_is_demanded_too_is_that_recipe(read):
    def of(candidate):
        own = "{name: mine, stages: [fold, quantize]}"
        search = f"{{search: {{budget: {{trials: 3}}, candidates: [int8, {candidate}]}}}}"
        return read(changed("recipes: [int8]", f"recipes: [int8, {own}, {search}]"))

    got = of("{name: mine, stages: [fold, quantize]}")
    assert got.search is not None
    assert got.search.candidates == got.recipes
    with pytest.raises(ConfigError, match="recipe 'mine' has other stages among the recipes"):
        of("{name: mine, stages: [fold]}")


SEARCH = "{search: {objective: latency, budget: {minutes: 5}, candidates: [int8, dynamic]}}"


@pytest.mark.parametrize("written", [SEARCH, f"[{SEARCH}]", f"[fp16, {SEARCH}]"])
def test_search_in_place_of_recipes(read, written):
    got = read(changed("[int8]", written))
    assert got.search is not None
    assert (got.search.minutes, got.search.trials, got.search.objective) == (5, None, "latency")
    assert got.search.tune is None
    assert got.search.candidates == (RecipeSpec(name="int8"), RecipeSpec(name="dynamic"))
    assert [recipe.name for recipe in got.recipes] == (["fp16"] if "fp16" in written else [])


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("{path: some/Model v2.onnx}", "Model-v2"),
        ('{uri: "models:/resnet@champion"}', "resnet"),
        ('{uri: "models:/resnet/3"}', "resnet"),
        ('{uri: "models:/m-1234"}', "digits"),
        ('{uri: "runs:/abc/model"}', "digits"),
        ("{path: a.onnx, name: b}", "b"),
    ],
)
def test_names_of_models(read, model, name):
    assert read(changed("{path: digits.onnx}", model)).models[0].name == name


def test_environment_in_paths(read, monkeypatch, tmp_path):
    monkeypatch.setenv("QPIPE_TEST_DATA", str(tmp_path / "elsewhere"))
    text = changed("gate.npz", '"${QPIPE_TEST_DATA}/gate.npz"')
    assert read(text).data.role("gate").npz == tmp_path / "elsewhere" / "gate.npz"
    monkeypatch.delenv("QPIPE_TEST_DATA")
    with pytest.raises(ConfigError, match=r"p.yaml:9: environment variable QPIPE_TEST_DATA is not set") as error:
        read(text)
    assert "export QPIPE_TEST_DATA=" in error.value.hint


def test_variable_without_quotes_in_braces(read):
    with pytest.raises(ConfigError, match=r"p\.yaml:9: not YAML") as error:
        read(changed("gate.npz", "${HOME}/gate.npz"))
    assert error.value.hint.startswith("put a value with ${…} in quotes")


def test_own_metric_and_functions(read, tmp_path):
    text = changed("task: classification", 'metric: {fn: "score:mine"}').replace("metric: accuracy, ", "")
    got = read(text.replace("{npz: search.npz}", '{fn: "rows:search"}'))
    assert (got.metric, got.task) == ("score:mine", None)
    assert got.data.role("search") == RoleSpec(role="search", fn="rows:search", fn_path=tmp_path)


def test_gates_choose_the_metric(read):
    assert read(changed("metric: accuracy", "metric: macro-f1")).metric == "macro-f1"


BAD = [
    ("calibration: {npz", "calibraton: {npz", "7: unknown key 'calibraton' in data; did you mean 'calibration'?"),
    ("samples: 256", "sample: 256", "7: unknown key 'sample' in data.calibration; did you mean 'samples'?"),
    ("name: digits", "nam: digits", "1: unknown key 'nam' in the file; did you mean 'name'?"),
    ("name: digits\n", "", "1: the file lacks the key 'name'"),
    ("  gate:        {npz: gate.npz, slices: [label], group: null}\n", "", "4: data lacks the key 'gate'"),
    ("name: digits", "name: a/b", "1: name: String should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$', found 'a/b'"),
    ("samples: 256", "samples: many", "7: data.calibration.samples: should be a valid integer, found 'many'"),
    ("samples: 256", "samples: 0", "7: data.calibration.samples: should be greater than or equal to 1, found 0"),
    ("samples: 256", "samples: '256'", "7: data.calibration.samples: should be a valid integer, found '256'"),
    ("std: 0.25", "std: [0]", "10: data.preprocess.image.std: std must be above 0"),
    ("std: 0.25", "std: [a]", "10: data.preprocess.image.std[0]: should be a valid number, found 'a'"),
    ("{npz: search.npz}", "{npz: s.npz, fn: 'a:b'}", "8: data.search names both npz and fn"),
    ("{npz: search.npz}", "{}", "8: data.search names neither npz nor fn"),
    ("{npz: search.npz}", "{fn: a.b}", "8: data.search.fn: String should match pattern"),
    ("label: label\n", "label: label\n  overlap: drop\n", "7: data.overlap: unknown value 'drop'"),
    ("[cpu-local]", "[cpu-locl]", "11: unknown target 'cpu-locl'; did you mean 'cpu-local'?"),
    ("[cpu-local]", "[cpu-local, cpu-local]", "11: target 'cpu-local' is named twice"),
    ("[cpu-local]", "[]", "11: targets: "),
    ("[cpu-local]", "cpu-local", "11: targets: should be a valid array, found 'cpu-local'"),
    ("[cpu-local]", "[{name: x, base: cpu}]", "11: unknown target 'cpu'"),
    ("[cpu-local]", "[{name: cpu-arm64, base: cpu-local}]", "11: target 'cpu-arm64' exists already (qpipe-core)"),
    (
        "[cpu-local]",
        "[{name: x, base: cpu-local, thread: 1}]",
        "11: unknown key 'thread' in targets[0]; did you mean 'threads'?",
    ),
    ("[int8]", "[int-8]", "12: unknown recipe 'int-8'; did you mean 'int8'?"),
    ("[int8]", "[int8, int8]", "12: recipe 'int8' is named twice"),
    ("[int8]", "int8", "12: recipes: "),
    ("[int8]", "[{name: a, stages: [quantise]}]", "12: unknown stage 'quantise'; did you mean 'quantize'?"),
    (
        "[int8]",
        "[{name: a, stages: [{quantize: {rnge: mse}}]}]",
        "12: unknown key 'rnge' in recipes[0].stages[0].quantize; did you mean 'range'?",
    ),
    (
        "[int8]",
        "[{name: a, stages: [{quantize: {range: mae}}]}]",
        "12: recipes[0].stages[0].quantize.range: unknown value 'mae'; did you mean 'mse'?",
    ),
    (
        "[int8]",
        "[{name: a, stages: [{quantize: {overrides: [{node: a, bts: 4}]}}]}]",
        "12: unknown key 'bts' in recipes[0].stages[0].quantize.overrides[0]; did you mean 'bits'?",
    ),
    ("[int8]", "[{name: a, stages: [{quantize: {}, fold: {}}]}]", "12: recipes[0].stages[0]: Dictionary should have"),
    ("[int8]", "[{name: int8, stages: [fold]}]", "12: recipe 'int8' is built in"),
    ("[int8]", "[{stages: [fold]}]", "12: the recipe lacks the key 'name'"),
    ("[int8]", "{search: {objective: latency}}", "12: the search has no budget"),
    (
        "[int8]",
        "{search: {objectiv: latency}}",
        "12: unknown key 'objectiv' in recipes.search; did you mean 'objective'?",
    ),
    ("  quality:", "  qualty:", "14: unknown gate 'qualty'; did you mean 'quality'?"),
    ("{at_most_ratio", "{type: sise, at_most_ratio", "17: unknown gate 'sise'; did you mean 'size'?"),
    ("margin: 0.01", "margn: 0.01", "14: unknown key 'margn' in gates.quality; did you mean 'margin'?"),
    (", margin: 0.01", "", "14: gates.quality lacks the key 'margin'"),
    ("margin: 0.01", "margin: small", "14: gates.quality.margin: should be a valid number, found 'small'"),
    ("margin: 0.01", "margin: 1.5", "14: gate 'quality': margin 1.5 is outside the range of accuracy"),
    (
        "required: false",
        "required: never",
        "16: gates.speedup.required: should be a valid boolean, found 'never'",
    ),
    (
        "required: false",
        "accept: [measurd]",
        "16: gates.speedup.accept[0]: unknown value 'measurd'; did you mean 'measured'?",
    ),
    ("required: false", "targets: [cpu]", "16: the pipeline has no target 'cpu'"),
    ("required: false", "recipes: [int9]", "16: the pipeline has no recipe 'int9'; did you mean 'int8'?"),
    ("classification", "clasification", "3: unknown task 'clasification'; did you mean 'classification'?"),
    (
        "by: label",
        "by: lable",
        "15: gate 'slices' judges by 'lable', which is not in data.gate.slices; did you mean 'label'?",
    ),
    ("metric: accuracy", "metric: acuracy", "14: unknown metric 'acuracy'; did you mean 'accuracy'?"),
    (
        "quality: {metric: accuracy,",
        "f1: {type: quality, metric: macro-f1, margin: 0.1}\n  quality: {",
        "14: gate 'f1' asks for 'macro-f1', and 'quality' for the task's 'accuracy'",
    ),
    ("task: classification", "metric: mae", "14: gate 'quality' asks for 'accuracy', the pipeline measures 'mae'"),
    ("{path: digits.onnx}", "{}", "2: the model names neither path nor uri"),
    ("{path: digits.onnx}", "{path: a, uri: 'models:/a/1'}", "2: the model names both path and uri"),
    ("{path: digits.onnx}", "{path: 'models:/a@b'}", "2: 'models:/a@b' is no path"),
    ("{path: digits.onnx}", "{uri: 'model:/a@b'}", "2: model.uri: String should match pattern"),
    ("model: {path: digits.onnx}\n", "", "1: the file names neither model nor models"),
    (
        "model: {path: digits.onnx}",
        "models: [{path: a/m.onnx}, {path: b/m.onnx}]",
        "2: two models are called 'm'",
    ),
    (
        "{model}-{target}",
        "{model}-{tarqet}",
        "18: unknown placeholder {tarqet} in promote.model; did you mean 'target'?",
    ),
    ("{model}-{target}", "a/{target}", "18: promote.model 'a/{target}' has characters that no model name may have"),
    ("alias: champion", "alias: latest", "18: promote.alias 'latest' is reserved by MLflow"),
    ("alias: champion", "alias: v12", "18: promote.alias 'v12' is reserved by MLflow"),
    ("  calibration: {npz: calib.npz, samples: 256, seed: 0}\n", "", "4: recipe 'int8' needs data.calibration"),
    ("task: classification", "task: classification\ntask: sts", "4: key 'task' stands here and in line 3 already"),
    ("  label: label", "\tlabel: label", "6: a tab indents this line; YAML takes spaces"),
    ("label: label", "label:\tlabel", "6: a tab stands in this line; YAML takes spaces"),
    (
        "  label: label",
        "\u00a0 label: label",
        "6: a no-break or wide space (U+00A0) stands in this line; YAML takes plain",
    ),
    ("label: label", "label:\u00a0label", "6: a no-break or wide space (U+00A0) stands in this line; YAML takes plain"),
    ("label: label", "label: 'no\u00a0break", "20: not YAML: found unexpected end of stream"),
    ("  label: label", "  label: [", "8: not YAML: expected ',' or ']'"),
    ("  label: label", "  1: label", "6: the key 1 is no text"),
    ("  label: label", "  yes: label", "6: the key yes is no text"),
    ("margin: 0.01", "margin: .nan", "14: .nan is no number that can be meant"),
    ("label: label", "label: !mine x", "6: not YAML: could not determine a constructor for the tag '!mine'"),
    ("label: label", "label: 2026-99-99", " month must be in 1..12"),
    ("label: label", f"label: {'[' * 2000}", " nested too deeply"),
    ("name: digits", "name: digits\n---\na: 1", "2: a second document begins here"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD, ids=[message[:48] for *_, message in BAD])
def test_bad_input(read, tmp_path, old, new, message):
    with pytest.raises(ConfigError) as error:
        read(changed(old, new))
    assert error.value.message.startswith(f"{tmp_path}/p.yaml:{message}")
    assert "\n" not in error.value.message
    assert error.value.code == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "1: the pipeline file is empty"),
        (b"# nothing\n", "1: the pipeline file is empty"),
        (b"- a\n- b\n", "1: a pipeline file is a mapping of keys, this is a list"),
        (b"hello\n", "1: a pipeline file is a mapping of keys, this is a single value"),
        (b"a: &a [*a]\n", "1: an alias that contains itself"),
    ],
)
def test_no_mapping(tmp_path, names, content, message):
    path = tmp_path / "p.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_pipeline(path, names)
    assert error.value.message.startswith(f"{path}:{message}")


def test_files_that_cannot_be_read(tmp_path, names):
    (tmp_path / "digits.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match=r"no such pipeline file; did you mean 'digits\.yaml'\?"):
        read_pipeline(tmp_path / "digit.yaml", names)
    with pytest.raises(ConfigError, match=r"digits\.yaml is not UTF-8 text \(byte 6\)"):
        read_pipeline(tmp_path / "digits.yaml", names)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_pipeline(tmp_path, names)


def test_many_aliases_end_soon(tmp_path, names):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    (tmp_path / "p.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="or too many"):
        read_pipeline(tmp_path / "p.yaml", names)


def test_merges_of_merges_end_soon(tmp_path, names):
    lines = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}, *a{n - 1}]}}" for n in range(1, 25))]
    (tmp_path / "p.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="or too many"):
        read_pipeline(tmp_path / "p.yaml", names)


def test_what_is_no_plain_file_is_not_waited_for(tmp_path, names):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="is a pipe or a device"):
        read_pipeline(tmp_path / "pipe.yaml", names)
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(50 << 20)
    with pytest.raises(ConfigError, match="has 52,428,800 bytes: no pipeline file is as large"):
        read_pipeline(tmp_path / "large.yaml", names)


def test_links_in_a_circle(tmp_path, names):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "p.yaml").write_text("base: a/base.yaml")
    for path in (tmp_path / "a" / "p.yaml", tmp_path / "a"):
        with pytest.raises(ConfigError, match="Too many levels of symbolic links"):
            read_pipeline(path, names)
    with pytest.raises(ConfigError, match="no such file"):
        read_pipeline(tmp_path / "p.yaml", names)


def test_all_problems_are_listed(read, tmp_path):
    text = changed("[cpu-local]", "[cpu-locl]").replace("[int8]", "[int9]").replace("  quality:", "  qualty:")
    with pytest.raises(ConfigError) as error:
        read(text)
    assert error.value.message.startswith(f"{tmp_path}/p.yaml:11: unknown target")
    assert f"also {tmp_path}/p.yaml:12: unknown recipe 'int9'" in error.value.hint
    assert f"also {tmp_path}/p.yaml:14: unknown gate 'qualty'" in error.value.hint


@settings(deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_any_text_is_a_pipeline_or_a_config_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "p.yaml"
    path.write_bytes(text.encode())
    with pytest.raises(ConfigError):
        read_pipeline(path, None)


@pytest.fixture
def reread(read, names, tmp_path):
    def of(text):
        (tmp_path / "g.yaml").write_text(text)
        return read_gates(tmp_path / "g.yaml", names, read(FULL))

    return of


def test_a_file_of_gates(reread):
    got = reread("gates:\n  quality: {margin: 0.02}\n  finite:\n")
    assert [(gate.name, gate.params) for gate in got] == [("quality", {"margin": 0.02}), ("finite", {})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gates: {}", "1: gates: "),
        ("gate: {}", "1: unknown key 'gate' in the file; did you mean 'gates'?"),
        ("gates:\n  qualty: {}", "2: unknown gate 'qualty'; did you mean 'quality'?"),
        ("gates:\n  quality: {margin: 2}", "2: gate 'quality': margin 2.0 is outside"),
        ("gates:\n  quality: {margin: 0.1, metric: mae}", "2: gate 'quality' asks for 'mae', the pipeline measures"),
        ("gates:\n  finite: {targets: [gpu]}", "2: the pipeline has no target 'gpu'"),
        ("gates:\n  slices: {by: person, margin: 0.1}", "2: gate 'slices' judges by 'person'"),
    ],
)
def test_bad_files_of_gates(reread, tmp_path, text, message):
    with pytest.raises(ConfigError) as error:
        reread(text)
    assert error.value.message.startswith(f"{tmp_path}/g.yaml:{message}")


def test_schema_describes_gates_and_stages(names):
    schema = pipeline_schema(names.gates.values(), names.stages.values())
    json.dumps(schema)
    stage = schema["$defs"]["Stage"]["anyOf"]
    assert stage[0]["enum"] == ["fold", "calibrate", "quantize"]
    assert "range" in stage[1]["properties"]["quantize"]["anyOf"][0]["properties"]
    assert set(schema["properties"]) >= {"name", "model", "data", "gates", "promote"}
    gates = schema["properties"]["gates"]["properties"]
    assert set(gates) == {"quality", "slices", "size", "speedup", "finite"}
    assert gates["slices"]["required"] == ["by", "margin"]
    assert "required" in gates["slices"]["properties"]


def test_a_home_folder_that_nobody_has(tmp_path):
    from qpipe.config.paths import resolve_path

    with pytest.raises(ConfigError, match="a home folder that nobody has"):
        resolve_path("~nobody-of-that-name/x.npz", tmp_path)
