"""The loader and the registry: good plugins serve, bad ones are listed, and nothing dies of them."""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from qpipe.errors import ConfigError, PluginError, TargetError
from qpipe.plugins import registry as registry_module
from qpipe.plugins.calls import banners_aside
from qpipe.plugins.hookspecs import hookimpl
from qpipe.plugins.loader import load_plugins
from qpipe.plugins.origin import PluginProblem
from qpipe.plugins.registry import Registry
from qpipe.plugins.stage import StageType
from qpipe.records.result import CellResult
from qpipe.records.target import Target

SITE = Path(__file__).parent / "data" / "site"
ROOT = Path(__file__).parents[2]
RESULT = CellResult(key="k", model="m", recipe="int8", target="t", status="ok")


@pytest.fixture
def site(monkeypatch):
    """The three distributions as if they were installed."""
    monkeypatch.syspath_prepend(str(SITE))
    for name in ("qpipe_good", "qpipe_broken", "qpipe_missigned"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in ("qpipe_good", "qpipe_broken", "qpipe_missigned"):
        sys.modules.pop(name, None)


class Targets:
    """A plugin object that brings targets."""

    def __init__(self, *targets: object, then: BaseException | None = None):
        self.targets = targets
        self.then = then

    @hookimpl
    def qpipe_targets(self):
        yield from self.targets
        if self.then:
            raise self.then


class OtherTargets(Targets):
    pass


def problems_of(registry: Registry, name: str) -> list[PluginProblem]:
    return [problem for problem in registry.problems if problem.name == name]


def test_an_installed_plugin_serves(site):
    registry = load_plugins()
    good = next(plugin for plugin in registry.plugins if plugin.name == "good")
    assert (good.distribution, good.version) == ("qpipe-good", "1.2")
    assert registry.target("good-board").owner == "qpipe-good"
    assert registry.metric("mean-output").kind == "score"
    assert "mean-output" in registry.metrics
    assert registry.brings(good) == ("target good-board", "metric mean-output")
    assert problems_of(registry, "good") == []


def test_the_core_is_a_plugin_like_any_other():
    registry = load_plugins()
    core = registry.plugins[0]
    assert (core.name, core.distribution) == ("core", "qpipe-core")
    assert "metric accuracy" in registry.brings(core)
    assert registry.metric("accuracy").kind == "binary"
    assert registry.stage("quantize").needs_calibration


def test_a_plugin_that_cannot_be_imported_is_listed(site):
    (problem,) = problems_of(load_plugins(), "broken")
    assert (problem.distribution, problem.version) == ("qpipe-broken", "1.2")
    assert problem.reason == (
        "cannot import qpipe_broken: ModuleNotFoundError: No module named 'a_vendor_library_that_is_not_here'"
    )
    assert "a_vendor_library_that_is_not_here" in problem.hint


def test_a_mis_signed_plugin_is_listed_and_leaves_no_half_of_itself(site):
    registry = load_plugins()
    (problem,) = problems_of(registry, "missigned")
    assert problem.reason.startswith("qpipe_stages has a wrong signature: ")
    assert "context" in problem.reason
    assert problem.hint == "write `def qpipe_stages()`"
    assert "never-seen" not in registry.targets
    assert "missigned" not in [plugin.name for plugin in registry.plugins]


class Unmarked:
    def qpipe_targets(self):
        return ()


class Unknown:
    @hookimpl
    def qpipe_target(self):
        return ()


class Wrapper:
    @hookimpl(wrapper=True)
    def qpipe_targets(self):
        return (yield)


class Empty:
    pass


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (Unmarked(), "qpipe_targets is not marked as a hook"),
        (Unknown(), "there is no hook qpipe_target; did you mean 'qpipe_targets'?"),
        (Wrapper(), "qpipe_targets is a wrapper"),
        (Empty(), "it has no hooks"),
        (Targets, "Targets is a class"),
    ],
)
def test_wrong_hooks_are_refused_by_their_names(plugin, reason):
    (problem,) = [problem for problem in load_plugins((plugin,)).problems if problem.distribution == "this process"]
    assert problem.reason == reason
    assert problem.hint


@dataclass(frozen=True)
class Params:
    pass


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (Targets(Target(name="a", backend="b"), then=ValueError("boom\nboom")), "raised ValueError: boom boom"),
        (Targets(Target(name="a", backend="b"), then=SystemExit(3)), "raised SystemExit: 3"),
        (Targets(Target(name="a", backend="b"), "text"), "gave 'text': it is no Target"),
        (Targets(Target(name="", backend="b")), "its name is not made of letters"),
        (Targets(Target(name="a/b", backend="b")), "its name is not made of letters"),
        (Targets(Target(name="a", backend="b", threads="2")), 'its threads: "2" is not int'),
        (Targets(Target(name="a", backend="b", batch_sizes=8)), "its batch_sizes: 8 is not a list"),
        (Targets(Target(name="a", backend="b", threads=0)), "it has 0 threads and batch sizes [1]"),
        (Targets(Target(name="a", backend="b", batch_sizes=())), "it has 1 threads and batch sizes []"),
        (Targets(then=ConfigError("targets/x.yaml:3: no", hint="do")), "targets/x.yaml:3: no"),
    ],
)
def test_a_hook_that_raises_or_yields_something_else_counts_for_nothing(plugin, reason):
    registry = load_plugins((plugin,))
    (problem,) = problems_of(registry, "Targets")
    assert reason in problem.reason
    assert "\n" not in problem.reason
    assert "a" not in registry.targets
    with pytest.raises(TargetError, match="unknown target 'a'") as caught:
        registry.target("a")
    assert problem.reason in caught.value.hint  # an empty shelf says why it is empty


def test_backends_stages_and_nothing_are_checked():
    class Bad:
        @hookimpl
        def qpipe_backends(self):
            return [object()]

        @hookimpl
        def qpipe_stages(self):
            return [StageType(name="s", summary="", params=int, apply=lambda draft, _params, _context: draft)]

        @hookimpl
        def qpipe_gates(self):
            return None

    reasons = {problem.reason.split(" ")[0]: problem.reason for problem in problems_of(load_plugins((Bad(),)), "Bad")}
    assert "it has no method check, scheme, build, open" in reasons["qpipe_backends"]
    assert "its params are not a dataclass type" in reasons["qpipe_stages"]
    assert "TypeError" in reasons["qpipe_gates"]


@dataclass(frozen=True)
class Layers:
    names: frozenset[str] = frozenset()


def test_a_stage_whose_parameters_cannot_be_sent_is_refused_when_it_is_loaded():
    class Pruning:
        @hookimpl
        def qpipe_stages(self):
            return [StageType(name="prune", summary="", params=Layers, apply=lambda draft, _params, _context: draft)]

    registry = load_plugins((Pruning(),))
    (problem,) = problems_of(registry, "Pruning")
    assert "stage prune: its parameter names is frozenset[str]; a recipe can hold numbers, text" in problem.reason
    with pytest.raises(ConfigError, match="unknown stage 'prune'") as caught:
        registry.stage("prune")
    assert (caught.value.code, problem.reason in caught.value.hint) == (2, True)


def test_duplicates_are_refused_on_use_with_both_owners(site):
    mine = Target(name="good-board", backend="fake", owner="/home/me/targets/board.yaml")
    registry = load_plugins((Targets(mine, Target(name="other", backend="fake")),))
    with pytest.raises(PluginError) as caught:
        registry.target("good-board")
    assert "claimed by qpipe-good and by /home/me/targets/board.yaml" in caught.value.message
    assert caught.value.code == 2
    assert "good-board" not in registry.targets
    assert registry.target("other").backend == "fake"
    assert any("claimed by" in problem.reason for problem in registry.problems)


def test_duplicates_of_two_plugins_of_other_kinds_name_the_plugins():
    class One:
        @hookimpl
        def qpipe_stages(self):
            return [StageType(name="mine", summary="", params=Params, apply=lambda draft, _params, _context: draft)]

    class Two(One):
        pass

    with pytest.raises(PluginError, match=r"this process \(plugin One\) and by this process \(plugin Two\)"):
        load_plugins((One(), Two())).stage("mine")


@pytest.mark.parametrize(
    ("kind", "name", "error", "nearest"),
    [
        ("metric", "acuracy", ConfigError, "accuracy"),
        ("stage", "quantise", ConfigError, "quantize"),
        ("target", "board-on", TargetError, "board-one"),
        ("backend", "zzz", PluginError, None),
    ],
)
def test_an_unknown_name_comes_with_the_nearest(kind, name, error, nearest):
    registry = load_plugins((Targets(Target(name="board-one", backend="fake")),))
    with pytest.raises(error) as caught:
        getattr(registry, kind)(name)
    assert f"unknown {kind} {name!r}" in caught.value.message
    assert ("did you mean" in caught.value.message) == (nearest is not None)
    assert nearest is None or repr(nearest) in caught.value.message
    assert caught.value.code == 2


def test_cell_finished_tells_everyone_and_loses_no_error(site):
    class Rude:
        @hookimpl
        def qpipe_cell_finished(self, result):
            raise KeyError(result.key)

    class Brief:
        @hookimpl
        def qpipe_cell_finished(self):
            raise ValueError

    import qpipe_good

    warnings = load_plugins((Rude(), Brief())).cell_finished(RESULT)
    assert qpipe_good.finished == ["m/int8/t"]
    assert warnings == (
        "qpipe_cell_finished of this process (plugin Rude) raised KeyError: 'k' for m/int8/t",
        "qpipe_cell_finished of this process (plugin Brief) raised ValueError: for m/int8/t",
    )


def test_a_hook_that_hangs_is_left_alone_and_one_that_prints_does_not_reach_stdout(monkeypatch, capsys):
    told, free = [], threading.Event()

    class Chat:
        @hookimpl
        def qpipe_cell_finished(self, result):
            print("posted")
            told.append(result.label)
            free.wait()

    monkeypatch.setattr(registry_module, "PATIENCE_S", 0.1)
    registry = load_plugins((Chat(),))
    owner = "qpipe_cell_finished of this process (plugin Chat)"
    assert registry.cell_finished(RESULT) == (
        f"{owner} was still busy after 0.1 s and is not called again for m/int8/t",
    )
    assert registry.cell_finished(RESULT) == ()
    free.set()
    assert told == ["m/int8/t"]
    assert capsys.readouterr().out == ""


def test_what_c_code_prints_while_plugins_load_does_not_reach_stdout(capfd):
    with banners_aside():
        os.write(1, b"vendor 1.0\n")
        print("from Python")
    os.write(1, b"results\n")
    out, err = capfd.readouterr()
    assert out == "results\n"
    assert "vendor 1.0" in err
    assert "from Python" in err


def test_trace(site, monkeypatch, capsys):
    monkeypatch.setenv("QPIPE_TRACE", "1")
    load_plugins().target("good-board")
    assert "qpipe: qpipe_targets of qpipe-good (plugin good)\n" in capsys.readouterr().err
    monkeypatch.delenv("QPIPE_TRACE")
    load_plugins().target("good-board")
    assert capsys.readouterr().err == ""


def test_one_object_twice_is_one_plugin_and_a_problem():
    plugin = Targets(Target(name="a", backend="b"))
    registry = load_plugins((plugin, plugin, OtherTargets(Target(name="b", backend="b"))))
    assert {"a", "b"} <= set(registry.targets)
    assert "registered already" in problems_of(registry, "Targets")[0].reason


def test_each_kind_is_loaded_at_its_first_use(tmp_path):
    """Targets and backends alone import nothing heavy of the core."""
    code = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(SITE)!r}]
from qpipe.plugins.loader import load_plugins
registry = load_plugins()
registry.target("good-board")
heavy = {{"numpy", "scipy", "onnx", "onnxruntime", "mlflow", "pandas", "pydantic"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "[]\n"
