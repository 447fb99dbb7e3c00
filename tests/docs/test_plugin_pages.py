"""Every hook has a page with its exact signature and an example that serves as a real plugin."""

import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from measured_examples import evaluation, evidence

from qpipe.config import read_pipeline
from qpipe.flow.workplace import open_registry
from qpipe.metrics import find_metric
from qpipe.plugins import hookspecs
from qpipe.plugins.gate import Alpha, Outcomes
from qpipe.plugins.loader import load_plugins
from qpipe.plugins.metric import Rows
from qpipe.prepare import prepare
from qpipe.quant.schemes import ORT_X86_AVX2
from qpipe.records.evidence import NotMeasured
from qpipe.records.recipe import Recipe, StageSpec
from qpipe.records.result import CellResult
from qpipe.records.verdict import Decision
from qpipe.testing.models import small_batches, small_rows, write_small_model
from qpipe.testing.progress import Silent

DOCS = Path(__file__).parents[2] / "docs" / "plugins"
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("qpipe_"))
PAGES = {hook: DOCS / f"{hook.removeprefix('qpipe_').replace('_', '-')}.md" for hook in HOOKS}
RESULT = CellResult(key="k", model="m", recipe="int8", target="t", status="ok", decision=Decision.PASS)


def blocks(text, kind):
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def signature(hook):
    return f"def {hook}{inspect.signature(getattr(hookspecs, hook))}".replace("'", "")


def plugin_of(code, name):
    """The code of an example as a module that a plugin's entry point would name."""
    module = ModuleType(name)
    module.hookimpl = hookspecs.hookimpl
    sys.modules[name] = module  # dataclasses look themselves up there
    exec(compile(code, f"<{name}>", "exec"), module.__dict__)
    return module


@pytest.fixture
def example(request):
    """The example of a page's hook, loaded beside everything that is installed."""
    hook = request.param
    module = plugin_of(blocks(PAGES[hook].read_text(), "python")[0], f"example_of_{hook}")
    yield load_plugins((module,))
    del sys.modules[module.__name__]


def page(hook):
    return pytest.mark.parametrize("example", [hook], indirect=True, ids=[hook])


def serves(registry):
    (plugin,) = [plugin for plugin in registry.plugins if plugin.distribution == "this process"]
    assert not [problem for problem in registry.problems if problem.distribution == "this process"]
    return registry.brings(plugin)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_page_with_its_exact_signature(hook):
    text = PAGES[hook].read_text()
    assert text.startswith(f"# {hook}\n")
    assert blocks(text, "text")[0].strip() == signature(hook)
    assert f"]({PAGES[hook].name})" in (DOCS / "README.md").read_text()


def test_there_is_no_page_too_many():
    assert {path.name for path in DOCS.glob("*.md")} == {"README.md", *(path.name for path in PAGES.values())}
    assert set(re.findall(r"`(qpipe_\w+)`", (DOCS / "README.md").read_text())) == set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_docstring_has_an_example_that_runs(hook, capsys):
    (code,) = blocks(textwrap.dedent(inspect.getdoc(getattr(hookspecs, hook)) or ""), "python")
    module = plugin_of(code, f"docstring_of_{hook}")
    try:
        registry = load_plugins((module,))
        brought = serves(registry)
        assert registry.cell_finished(RESULT) == ()
    finally:
        del sys.modules[module.__name__]
    assert len(brought) == (0 if hook == "qpipe_cell_finished" else 1)
    if hook == "qpipe_cell_finished":
        assert "m/int8/t: PASS" in capsys.readouterr().err  # stdout holds results


@page("qpipe_targets")
def test_targets(example, tmp_path):
    assert serves(example) == ("target pi-5",)
    pipeline = read_block(PAGES["qpipe_targets"], example_registry(), tmp_path)
    assert [(target.name, target.threads) for target in pipeline.targets] == [("pi-5", 4), ("pi-5-one-thread", 1)]


@page("qpipe_stages")
def test_stages(example, tmp_path):
    assert serves(example) == ("stage round-weights",)
    pipeline = read_block(PAGES["qpipe_stages"], example_registry(), tmp_path)
    (recipe,) = [recipe for recipe in pipeline.recipes if recipe.name == "rounded"]
    assert recipe.stages[0] == StageSpec(name="round-weights", params={"bits": 8})
    prepared = prepare(
        write_small_model(tmp_path),
        Recipe(name="rounded", stages=recipe.stages[:1]),
        ORT_X86_AVX2,
        small_batches,
        tmp_path / "work",
        None,
        Silent(),
        stages=tuple(example.stages.values()),
    )
    import onnx
    from onnx import numpy_helper

    weights = numpy_helper.to_array(onnx.load(prepared.graph.path).graph.initializer[0])
    mantissa = np.frexp(weights)[0] * 2**8
    assert np.array_equal(mantissa, np.round(mantissa))


@page("qpipe_gates")
@pytest.mark.parametrize(
    ("sqnr_db", "kind", "decision"),
    [(25.0, "measured", "PASS"), (5.0, "measured", "FAIL"), (25.0, "simulated", "INCONCLUSIVE"), (None, "", "")],
)
def test_gates(example, tmp_path, sqnr_db, kind, decision):
    assert serves(example) == ("gate sqnr",)
    pipeline = read_block(PAGES["qpipe_gates"], example_registry(), tmp_path)
    assert [(gate.type, gate.required) for gate in pipeline.gates] == [("sqnr", False)]
    gate = example.gate("sqnr")
    verdict = gate.decide(outcomes(sqnr_db, kind), gate.params(at_least_db=20.0), Alpha())
    assert verdict.decision == (decision or "INCONCLUSIVE")
    assert verdict.reason


@page("qpipe_metrics")
def test_metrics(example, tmp_path):
    assert serves(example) == ("metric within-one",)
    assert read_block(PAGES["qpipe_metrics"], example_registry(), tmp_path).metric == "within-one"
    metric = find_metric("within-one", example.metrics.values())
    rows = Rows(outputs={"grade": np.array([[1.4], [4.0], [2.0]])}, columns={"y": np.array([2, 1, 2])}, label="y")
    assert metric.aggregate(metric.measure(rows).values) == pytest.approx(2 / 3)


@page("qpipe_cell_finished")
def test_cell_finished(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    serves(example)
    assert example.cell_finished(RESULT) == ()
    assert json.loads((tmp_path / "cells.jsonl").read_text()) == {
        "cell": "m/int8/t",
        "status": "ok",
        "decision": "PASS",
    }


@page("qpipe_backends")
def test_backends(example):
    assert serves(example) == ("backend onnx-reference",)


def test_the_backend_passes_the_contract(tmp_path):
    (tmp_path / "example_backend.py").write_text(blocks(PAGES["qpipe_backends"].read_text(), "python")[0])
    (tmp_path / "test_it.py").write_text("""
import pytest
from example_backend import OnnxReference
from qpipe.records.target import Target
from qpipe.testing.contract import BackendContract

class TestIt(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        return OnnxReference()

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls):
        return Target(name="slow", backend="onnx-reference")
""")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "test_it.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed, 6 skipped" in done.stdout, done.stdout  # engines run here, and it tells no placement


def example_registry():
    """The registry of an example with the core's own targets, as `qpipe run` has it."""
    (name,) = [name for name in sys.modules if name.startswith("example_of_")]
    from qpipe.flow.workplace import FirstPartyTargets

    return load_plugins((FirstPartyTargets(), sys.modules[name]))


def read_block(path, registry, folder):
    """The page's YAML as part of a whole pipeline."""
    whole = {
        "name": "small",
        "model": {"path": "small.onnx"},
        "task": "classification",
        "data": {
            "inputs": {"rows": "image"},
            "label": "label",
            "calibration": {"npz": "gate.npz"},
            "gate": {"npz": "gate.npz"},
        },
        "targets": ["cpu-local"],
        "recipes": ["int8"],
        "gates": {},
    }
    (block,) = blocks(path.read_text(), "yaml")
    write_small_model(folder)
    np.savez(folder / "gate.npz", rows=small_rows(4), label=np.zeros(4, np.int64))
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(whole | yaml.safe_load(block)))
    return read_pipeline(file, registry)


def outcomes(sqnr_db, kind):
    """Evidence with that SQNR; without a kind, of nothing measured."""
    measured = evaluation(kind=kind or "measured", sqnr_db=sqnr_db)
    found = evidence(evaluation=measured if kind else NotMeasured(reason="the board is asleep"))
    return Outcomes(
        evidence=found,
        metric=open_registry().metric("accuracy"),
        engine=np.ones((100, 1)),
        reference=np.ones((100, 1)),
        groups=None,
        slices={},
        agreement=np.ones(100),
        labelled=True,
        seed=0,
        accept=("measured",),
    )
