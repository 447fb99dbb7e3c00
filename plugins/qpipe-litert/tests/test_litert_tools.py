"""The converter's environment and the target's options, without the environment itself."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import edge_models as edge
import pytest
from qpipe_litert import tools
from qpipe_litert.backend import LiteRtBackend

from qpipe.errors import TargetError, UnavailableError
from qpipe.flow.doctor import look_at
from qpipe.plugins.backend import Backend, Setup
from qpipe.plugins.loader import load_plugins
from qpipe.records.engine import Ready, Unavailable
from qpipe.records.target import Host, Target
from qpipe.testing.progress import Silent

TARGET = Target(name="x86-litert", backend="litert")


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QPIPE_HOME", str(tmp_path))
    return tmp_path


def test_missing_environment_is_said_with_the_command(empty_home: Path) -> None:
    state = tools.tool_state()
    assert isinstance(state, Unavailable)
    assert state.hint == "qpipe setup litert"
    assert str(empty_home) in state.reason
    build = LiteRtBackend().check(TARGET).build
    said = "the onnx2tf 2.6.9 environment is missing: the first build makes it (40 s, 0.7 GB), or qpipe setup litert"
    assert build == Ready(note=said)


def test_the_doctor_says_that_the_environment_is_not_there_yet(empty_home: Path) -> None:
    found = look_at(TARGET, load_plugins())
    assert found.state == "note"
    assert "can be built and run here; the onnx2tf 2.6.9 environment is missing" in found.found


def test_a_whole_environment_needs_no_word(tool: None) -> None:
    assert LiteRtBackend().check(TARGET).build == Ready()


@pytest.mark.parametrize("text", ['{"requirements": "of yesterday"}', "not json", "[]"])
def test_environment_of_another_version_is_not_taken(empty_home: Path, text: str) -> None:
    tool = tools.tool_environment()
    tool.python.parent.mkdir(parents=True)
    tool.python.touch()
    tool.mark.write_text(text)
    state = tools.tool_state()
    assert isinstance(state, Unavailable)
    assert "of another version" in state.reason


def test_every_package_of_the_environment_has_one_version_and_python_is_not_asked(empty_home: Path) -> None:
    """Its metadata asks for Python 3.12 and pins what qpipe runs with in other versions: a place of its own, whole."""
    lines = [line for line in tools.requirements().splitlines() if line and not line.startswith("#")]
    assert f"onnx2tf=={tools.ONNX2TF}" in lines
    assert all(line.count("==") == 1 for line in lines)
    command = tools._pip_command(tools.tool_environment(), empty_home / "list.txt")
    assert command[0] == str(tools.tool_environment().python) != sys.executable
    assert {"--no-deps", "--ignore-requires-python"} <= set(command)


class Told(Silent):
    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, name: str, *, total: int | None = None) -> None:  # noqa: ARG002 - as the protocol has it
        self.steps.append(name)


@pytest.mark.slow
def test_first_build_makes_the_environment_and_offline_says_what_to_run(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "no-wheels"
    empty.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(empty))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    ready = edge.prepared(edge.rank_three_net(), tmp_path / "m")
    progress = Told()
    (tmp_path / "e").mkdir()
    with pytest.raises(UnavailableError, match="could not be made") as caught:
        LiteRtBackend().build(ready, TARGET, tmp_path / "e", progress)
    assert progress.steps[-1] == f"install onnx2tf {tools.ONNX2TF} (once, 0.7 GB)"
    assert "pip download" in caught.value.hint
    assert not tools.tool_environment().folder.exists()


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QPIPE_HOME", str(tmp_path / "file"))
    with pytest.raises(UnavailableError, match=r"cannot be made in .*: Not a directory") as caught:
        LiteRtBackend().setup(TARGET, Silent())
    assert "QPIPE_HOME" in caught.value.hint


def test_a_python_that_does_not_start_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version managers leave shims on PATH for interpreters that are not there."""
    shim = tmp_path / "python3.12"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools._best_python() == sys.executable


def test_setup_of_a_whole_environment_does_nothing(tool: None) -> None:
    before = tools.tool_environment().mark.stat().st_mtime_ns
    LiteRtBackend().setup(TARGET, Silent())
    assert tools.tool_environment().mark.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": "fast"}, "no option 'speed'"),
        ({"io": "int4"}, 'options: io: "int4" is not one of'),
        ({"kernels": []}, "options: kernels: "),
    ],
)
def test_options_are_validated(options: dict[str, object], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        LiteRtBackend().check(replace(TARGET, options=options))


def test_target_of_another_machine_cannot_run_here() -> None:
    state = LiteRtBackend().check(replace(TARGET, arch="mips"))
    assert isinstance(state.run, Unavailable)
    assert "is mips" in state.run.reason
    assert isinstance(LiteRtBackend().check(replace(TARGET, arch="mips", host=Host())).run, Unavailable)


def test_backend_keeps_the_protocols() -> None:
    assert isinstance(LiteRtBackend(), Backend)
    assert isinstance(LiteRtBackend(), Setup)
    toolchain = dict(LiteRtBackend().check(TARGET).toolchain)
    assert toolchain["onnx2tf"] == tools.ONNX2TF
    assert toolchain["ai-edge-litert"].startswith("2.3")


def test_checking_imports_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys; from qpipe_litert.backend import LiteRtBackend; from qpipe.records.target import Target;"
        "LiteRtBackend().check(Target(name='t', backend='litert'));"
        "print([m for m in ('numpy', 'onnx', 'onnxruntime', 'ai_edge_litert') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.strip() == "[]"
