"""Keys follow the code of plugins: what an old stage, metric or backend made is not used by a new one."""

import importlib
import sys
import textwrap
from pathlib import Path

import pytest
from small_pipeline import write_small_pipeline

from qpipe.config import read_pipeline
from qpipe.models import read_model
from qpipe.planning import expand
from qpipe.plugins.code import code_digest
from qpipe.plugins.hookspecs import hookimpl
from qpipe.plugins.loader import load_plugins
from qpipe.plugins.metric import Metric
from qpipe.plugins.registry import Registry
from qpipe.records.target import Target
from qpipe.testing.fake import FakeBackend

PACKAGE = {
    "__init__.py": "",
    "plugin.py": """
        from dataclasses import dataclass
        from qpipe.plugins.hookspecs import hookimpl
        from qpipe.plugins.stage import StageType
        from pruning_for_test.masks import apply

        @dataclass(frozen=True)
        class Params:
            keep: int = 2

        @hookimpl
        def qpipe_stages():
            yield StageType(name="prune-for-test", summary="", params=Params, apply=apply)
    """,
    "masks.py": "def apply(draft, params, context): return draft\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "pruning_for_test"
    folder.mkdir()
    for name, text in PACKAGE.items():
        (folder / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.startswith("pruning_for_test")]:
        del sys.modules[name]


def load(*more: object) -> Registry:
    code_digest.cache_clear()
    return load_plugins((importlib.import_module("pruning_for_test.plugin"), *more))


@pytest.mark.parametrize("file", ["plugin.py", "masks.py", "tables.py"])
def test_any_file_of_the_package_changes_the_code_of_its_stage(package, file):
    before = load().code_of_stage("prune-for-test")
    with (package / file).open("a") as stream:
        stream.write("# another line\n")
    assert before != load().code_of_stage("prune-for-test")
    assert before.startswith("this process")


def test_the_python_code_of_all_stages_and_metrics_leaves_out_what_is_compiled(package):
    before = load(Mine()).python_code()
    assert before.keys() >= {"stage prune-for-test", "metric mine"}
    assert not {"stage quantize", "metric accuracy"} & before.keys()
    (package / "kernels.so").write_bytes(b"of this architecture")
    after = load(Mine())
    assert after.python_code() == before
    assert "this process" in after.code_of_stage("prune-for-test")
    (package / "masks.py").write_text("def apply(draft, params, context): return None\n")
    found = load(Mine()).python_code()
    assert [name for name in before if found[name] != before[name]] == ["stage prune-for-test"]


def test_what_the_core_brings_is_in_other_ingredients():
    registry = load_plugins()
    assert not registry.code_of_stage("quantize")
    assert not registry.code_of_metric("accuracy")


class Scorer:
    """A metric's function may be any callable."""

    def __call__(self, _rows):
        raise AssertionError


class Mine:
    def __init__(self, *targets: Target):
        self.targets = targets

    @hookimpl
    def qpipe_targets(self):
        return self.targets

    @hookimpl
    def qpipe_backends(self):
        return [FakeBackend()]

    @hookimpl
    def qpipe_metrics(self):
        yield Metric(name="mine", summary="", kind="score", measure=Scorer(), aggregate=float)


def test_a_callable_object_and_a_backend_of_another_module_have_code():
    registry = load_plugins((Mine(),))
    assert len(registry.code_of_metric("mine").split("+")[1]) == 16
    assert registry.code_of_backend("fake")


def test_the_code_of_stage_metric_and_backend_stands_in_their_keys(package, tmp_path):
    board = Target(name="board", backend="fake")
    recipes = [{"name": "pruned", "stages": ["prune-for-test"]}]
    file = write_small_pipeline(tmp_path, metric="mine", task=None, targets=["board"], recipes=recipes)
    model = read_model(tmp_path / "small.onnx", name="small", origin="small.onnx")

    def keys() -> list[dict[str, str]]:
        registry = load(Mine(board))
        _, cell = expand(read_pipeline(file, registry), (model,), registry, profile=False)
        return [{part.name: part.value for part in key.ingredients} for key in (cell.prepare, cell.build, cell.measure)]

    before = keys()
    (package / "masks.py").write_text("def apply(draft, params, context): return None\n")
    after = keys()
    assert [{name for name in now if now[name] != then[name]} for then, now in zip(before, after, strict=True)] == [
        {"stage code"}
    ] * 3
    assert before[1]["backend code"]
    assert before[2]["metric"] == f"mine {load(Mine()).code_of_metric('mine')}"
