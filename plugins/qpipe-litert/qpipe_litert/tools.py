"""The converter's environment of its own: onnx2tf pins other numpy, onnx and protobuf than we run with."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from qpipe.errors import UnavailableError
from qpipe.home import home
from qpipe.plugins.backend import Progress
from qpipe.records.engine import Ready, Unavailable

ONNX2TF = "2.6.9"
HINT = "qpipe setup litert"
_MARK = "qpipe-tool.json"
_PIP_TIMEOUT_S = 1200.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolEnvironment:
    """A virtual environment that holds the converter."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def mark(self) -> Path:
        """Written last, so that a half-made environment is never taken for a whole one."""
        return self.folder / _MARK


def tool_environment() -> ToolEnvironment:
    """Where the converter's environment is, or would be."""
    return ToolEnvironment(folder=home() / "tools" / f"onnx2tf-{ONNX2TF}")


def requirements() -> str:
    """Every package of the environment with its version."""
    return (files("qpipe_litert") / "onnx2tf-requirements.txt").read_text("utf-8")


def _fingerprint() -> str:
    return hashlib.sha256(requirements().encode()).hexdigest()


def tool_state() -> Ready | Unavailable:
    """Whether the converter's environment is there, whole, and of this version."""
    tool = tool_environment()
    if not tool.mark.is_file() or not tool.python.exists():
        return Unavailable(reason=f"the onnx2tf {ONNX2TF} environment is missing: {tool.folder}", hint=HINT)
    try:
        found = json.loads(tool.mark.read_text("utf-8")).get("requirements")
    except (OSError, ValueError, AttributeError):
        found = None
    if found != _fingerprint():
        return Unavailable(reason=f"the onnx2tf environment is of another version: {tool.folder}", hint=HINT)
    return Ready()


def create_tool(progress: Progress) -> ToolEnvironment:
    """Make the environment (about 40 s, 0.7 GB), or leave it as it is when it is whole.

    `qpipe setup` calls it, and so does the first build: of several at once, one makes it and the others wait.

    Raises:
        UnavailableError: packages could not be fetched; the hint says what to run.
    """
    if isinstance(tool_state(), Ready):
        return tool_environment()
    tool = tool_environment()
    try:
        tool.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(tool.folder.with_name(f"{tool.folder.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as problem:
        raise UnavailableError(
            f"the onnx2tf environment cannot be made in {tool.folder.parent}: {problem.strerror}",
            hint="QPIPE_HOME names another folder",
        ) from problem
    try:
        _lock(lock, progress)
        return tool if isinstance(tool_state(), Ready) else _create(tool, progress)
    finally:
        os.close(lock)


def _lock(lock: int, progress: Progress) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        progress.step("wait for another process that makes the onnx2tf environment")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _create(tool: ToolEnvironment, progress: Progress) -> ToolEnvironment:
    shutil.rmtree(tool.folder, ignore_errors=True)
    python = _best_python()
    progress.step(f"create the onnx2tf environment ({python})")
    _run([python, "-m", "venv", str(tool.folder)], tool)
    progress.step(f"install onnx2tf {ONNX2TF} (once, 0.7 GB)")
    listed = tool.folder / "requirements.txt"
    listed.write_text(requirements(), "utf-8")
    _run(_pip_command(tool, listed), tool)
    tool.mark.write_text(json.dumps({"requirements": _fingerprint(), "onnx2tf": ONNX2TF, "python": python}), "utf-8")
    return tool


def _pip_command(tool: ToolEnvironment, listed: Path) -> list[str]:
    # onnx2tf's metadata asks for Python 3.12; its TensorFlow-free path runs on 3.11. `--no-deps`: the list is whole.
    pip = [str(tool.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    return [*pip, "--ignore-requires-python", "-r", str(listed)]


def _best_python() -> str:
    if (3, 12) <= sys.version_info[:2] <= (3, 13):
        return sys.executable
    found = (shutil.which(name) for name in ("python3.12", "python3.13"))
    return next((path for path in found if path and _makes_environments(path)), sys.executable)


def _makes_environments(python: str) -> bool:
    # A version manager leaves shims on PATH for interpreters that are not there, and Debian splits ensurepip off.
    try:
        done = subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _run(command: list[str], tool: ToolEnvironment) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        shutil.rmtree(tool.folder, ignore_errors=True)
        raise UnavailableError(
            f"the onnx2tf environment could not be made: {problem}", hint=_offline_hint()
        ) from problem
    if done.returncode != 0:
        shutil.rmtree(tool.folder, ignore_errors=True)
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        last = lines[-1] if lines else f"exit {done.returncode}"
        raise UnavailableError(f"the onnx2tf environment could not be made: {last}", hint=_offline_hint())


def _offline_hint() -> str:
    listed = files("qpipe_litert") / "onnx2tf-requirements.txt"
    return (
        f"with a network: python -m pip download --no-deps --ignore-requires-python -d WHEELS -r {listed}; "
        f"then here: PIP_NO_INDEX=1 PIP_FIND_LINKS=WHEELS {HINT}"
    )
