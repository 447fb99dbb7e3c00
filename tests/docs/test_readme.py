"""The tour of the README is what a newcomer types: every command of it runs, in order, and does what it says."""

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from qpipe.cli.guarded import run_app

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def commands():
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def at_a_shell(words, folder, environment):
    """The installed program, as a newcomer starts it."""
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)


def in_this_process(words, folder):
    """The same command line without importing MLflow once more."""
    said, complained = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(complained),
        warnings.catch_warnings(action="ignore"),
    ):
        code = run_app(words[1:])
    return subprocess.CompletedProcess(words, code, said.getvalue(), complained.getvalue())


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    """Every command with what it printed and its exit code; the first one as a program of its own."""
    folder = tmp_path_factory.mktemp("tour")
    tools = Path(sys.executable).parent
    done = {}
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "QPIPE_"))]:
            patch.delenv(name)
        patch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        terminated = signal.getsignal(signal.SIGTERM)
        for command in commands():
            words = shlex.split(command)
            if words[0] == "cd":
                folder = folder / words[1]
            elif words[0] == "qpipe" and done:
                done[command] = in_this_process(words, folder)
            else:
                done[command] = at_a_shell(words, folder, dict(os.environ))
        signal.signal(signal.SIGTERM, terminated)
    return folder, done


@pytest.mark.parametrize("command", [command for command in commands() if not command.startswith("cd ")])
def test_every_command_of_the_tour_succeeds(tour, command):
    done = tour[1][command]
    assert done.returncode == 0, done.stderr + done.stdout


def test_the_tour_ends_with_a_promoted_engine_a_report_and_a_draft(tour):
    folder, done = tour
    assert "PASS" in done["qpipe demo"].stdout
    assert "digits-cpu-local version 1 is champion" in done["qpipe demo"].stdout
    assert "cached" in done["qpipe plan digits.yaml"].stdout
    assert (folder / "report" / "report.html").is_file()
    assert "promote" in done["qpipe history digits-cpu-local"].stdout
    assert "broken" not in done["qpipe verify models:/digits-cpu-local@champion"].stdout
    assert (folder / "mine.yaml").is_file()


def test_pages_that_the_readme_links_exist():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []
