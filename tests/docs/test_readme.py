"""The tour of the README is what a newcomer types: every command of it runs, in order, and does what it says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def commands():
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    """Every command with what it printed and its exit code."""
    folder = tmp_path_factory.mktemp("tour")
    tools = Path(sys.executable).parent
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "QPIPE_"))}
    environment["PATH"] = f"{tools}{os.pathsep}{environment['PATH']}"
    done = {}
    for command in commands():
        words = shlex.split(command)
        if words[0] == "cd":
            folder = folder / words[1]
            continue
        done[command] = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
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
