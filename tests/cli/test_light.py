"""What a user types first is quick: nothing heavy is imported for help, targets and plans."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from small_pipeline import write_small_pipeline

from qpipe.allowance import WITHOUT_NUMPY

HEAVY = ("mlflow", "onnxruntime", "pandas", "scipy", "matplotlib", "statsmodels", "sklearn")
DUMP = """
import contextlib, io, json, sys
from qpipe.cli.guarded import run_app
for arguments in {commands!r}:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = run_app(arguments)
    heavy = [name for name in {modules!r} if name in sys.modules]
    print(json.dumps([" ".join(arguments), code, bool(said.getvalue()), heavy]))
"""


def told(folder: Path, commands: list[list[str]], modules: tuple[str, ...]) -> list[list[object]]:
    """Of each command, one after the other in one process: its code, whether it said a thing, what is imported."""
    code = DUMP.format(commands=commands, modules=modules)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def folder(tmp_path) -> Path:
    gates = {"quality": {"margin": 0.05}, "speedup": {"at_least": 1.1}, "slices": {"by": "label", "margin": 0.1}}
    write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=["int8", "fp16", "dynamic"], gates=gates)
    return tmp_path


def test_help_imports_no_numpy_either(tmp_path):
    commands = [["--help"], ["run", "--help"], ["--version"]]
    light = [[" ".join(arguments), 0, True, []] for arguments in commands]
    assert told(tmp_path, commands, (*HEAVY, "numpy", "onnx", "yaml")) == light


def test_commands_that_need_less_address_space_import_no_numpy(tmp_path):
    """They are not refused where it is limited."""
    commands = [[name, *(["zz"] if name == "new-target" else [])] for name in sorted(WITHOUT_NUMPY)]
    assert told(tmp_path, commands, (*HEAVY, "numpy")) == [[" ".join(one), 0, True, []] for one in commands]


def test_what_looks_only_imports_nothing_heavy(folder):
    commands = [
        ["targets"],
        ["targets", "--json"],
        ["plugins"],
        ["stages"],
        ["gates"],
        ["schema"],
        ["schema", "pipeline"],
        ["plan", "small.yaml"],
        ["plan", "small.yaml", "--json"],
        ["init", "small.onnx"],
    ]
    assert told(folder, commands, HEAVY) == [[" ".join(arguments), 0, True, []] for arguments in commands]


def test_help_takes_little_cpu(tmp_path):
    """At the latest the fifth time: others may use this machine."""
    best = 9.0
    for _ in range(5):
        if best < 0.35:
            break
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "qpipe", "--help"], cwd=tmp_path, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert best < 0.35
