"""A pipeline file over another one."""

import pytest

from qpipe.config import pipeline_schema, read_pipeline, without_bases
from qpipe.errors import ConfigError

SHARED = """\
task: classification
data:
  inputs: {image: input}
  label: label
targets: [cpu-local, cpu-x86-avx2]
recipes: [int8]
gates:
  quality: {margin: 0.01}
  size: {at_most_ratio: 0.35}
"""
OWN = """\
base: fleet.yaml
name: small
model: {path: small.onnx}
data:
  calibration: {npz: small/calib.npz}
  gate: {npz: small/gate.npz}
"""


@pytest.fixture
def read(tmp_path, names):
    def of(own=OWN, shared=SHARED):
        (tmp_path / "fleet.yaml").write_text(shared)
        (tmp_path / "small.yaml").write_text(own)
        return read_pipeline(tmp_path / "small.yaml", names)

    return of


def test_a_file_says_what_is_its_own(read, tmp_path):
    got = read()
    assert (got.name, got.data.label, got.data.role("gate").npz) == ("small", "label", tmp_path / "small" / "gate.npz")
    assert [target.name for target in got.targets] == ["cpu-local", "cpu-x86-avx2"]
    assert {gate.name: dict(gate.params) for gate in got.gates}["quality"]["margin"] == 0.01


def test_what_it_writes_stands_in_the_place_of_the_base(read):
    got = read(OWN + "targets: [cpu-local]\ngates: {quality: {margin: 0.05}}\n")
    assert [target.name for target in got.targets] == ["cpu-local"]
    assert {gate.name: gate.params.get("margin") for gate in got.gates} == {"quality": 0.05, "size": None}


def test_paths_of_many_models_stand_once(read, tmp_path):
    roles = """\
  calibration: {npz: "of {name}/{name}-calib.npz"}
  gate: {npz: "{name}/gate.npz"}
model: {path: "models/{name}.onnx"}
promote: {model: "{name}-{target}", alias: champion}
targets:"""
    got = read("base: fleet.yaml\nname: small\n", SHARED.replace("targets:", roles))
    assert got.models[0].path == tmp_path / "models" / "small.onnx"
    assert got.data.role("calibration").npz == tmp_path / "of small" / "small-calib.npz"
    assert got.promote.model == "small-{target}"


def test_a_base_may_have_a_base(read, tmp_path):
    (tmp_path / "all.yaml").write_text(SHARED)
    assert read(shared="base: all.yaml\nrecipes: [none, int8]\n").recipes[0].name == "none"


@pytest.mark.parametrize(
    ("own", "shared", "message"),
    [
        (OWN, SHARED.replace("[int8]", "[int-8]"), "fleet.yaml:6: unknown recipe 'int-8'"),
        (OWN + "gates: {qualty: {margin: 1}}\n", SHARED, "small.yaml:7: unknown gate 'qualty'"),
        (OWN, SHARED.replace("  label", "  lable"), "fleet.yaml:4: unknown key 'lable' in data"),
        (OWN.replace("fleet", "fleat"), SHARED, "fleat.yaml: no such file; did you mean 'fleet.yaml'?"),
        (OWN.replace("fleet.yaml", "[fleet.yaml]"), SHARED, "small.yaml:1: base is the path of another"),
        (OWN, "base: small.yaml\n" + SHARED, "fleet.yaml:1: base 'small.yaml' leads back"),
        (OWN, SHARED.replace("targets", "#"), "the file lacks the key 'targets'"),
    ],
)
def test_a_mistake_is_told_where_it_stands(read, own, shared, message):
    with pytest.raises(ConfigError) as error:
        read(own, shared)
    assert message in f"{error.value.message}\n{error.value.hint}"


def test_no_file_is_advised_as_its_own_base(read):
    with pytest.raises(ConfigError, match=r"smal\.yaml: no such file; did you mean 'fleet\.yaml'\?$"):
        read(OWN.replace("fleet", "smal"))


def test_editors_ask_a_file_over_a_base_for_nothing_more(names):
    schema = pipeline_schema(names.gates.values(), names.stages.values())
    assert {"required": ["base"]} in schema["anyOf"]
    assert "required" not in schema


def test_a_glob_names_the_base_too_and_it_is_no_pipeline(tmp_path):
    texts = {"all": "recipes: [int8]", "fleet": "base: all.yaml", "a": "base: fleet.yaml\nname: a"}
    texts |= {"b": "base: a.yaml\nname: b", "broken": "base: [", "lonely": "recipes: [int8]"}
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    found = without_bases([*sorted(tmp_path.glob("*.yaml")), tmp_path / "a.yaml"], kind="pipeline")
    assert [file.stem for file in found] == ["a", "b", "broken", "lonely"]
