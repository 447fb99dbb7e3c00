"""`qpipe new-target`: what it writes is a plugin that passes the contract as it is."""

import json
import os
import subprocess
import sys
import tomllib

import pytest

from qpipe.cli.guarded import run_app


def install(folder, site):
    """As pip would, for a distribution that is pure Python: its folder on the path, its entry points beside."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    entries = "".join(f"{name} = {value}\n" for name, value in project["entry-points"]["qpipe"].items())
    (info / "entry_points.txt").write_text(f"[qpipe]\n{entries}")
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (folder, site)))}


def call(environment, folder, *command):
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_generated_plugin_passes_the_contract_and_is_listed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_app(["new-target", "my-board", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["target"], found["folder"]) == ("my-board", "qpipe-my-board")
    folder = tmp_path / found["folder"]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == sorted(
        found["files"]
    )
    assert [path.name for path in tmp_path.iterdir()] == ["qpipe-my-board"], "nothing else was left behind"

    environment = install(folder, tmp_path / "site")
    tests = call(environment, folder, "pytest", "-p", "no:cacheprovider", "-W", "error")
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert " passed, 6 skipped" in tests.stdout, tests.stdout  # engines run here, and it tells no placement

    listed = call(environment, tmp_path, "qpipe", "targets", "--json")
    rows = {row["target"]: row for row in json.loads(listed.stdout)["targets"]}
    assert (rows["my-board"]["backend"], rows["my-board"]["build"], rows["my-board"]["run"]) == (
        "my-board",
        "ready",
        "ready",
    )
    plugins = json.loads(call(environment, tmp_path, "qpipe", "plugins", "--json").stdout)["plugins"]
    assert [row["state"] for row in plugins if row["distribution"] == "qpipe-my-board"] == ["loaded"]


def test_generated_code_is_clean(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_app(["new-target", "rv2-core-64", "--folder", "made"]) == 0
    assert "wrote 8 files to made" in capsys.readouterr().out
    for words in (("check", "--select", "E,F,W,B,UP,ANN,RET,SIM,PTH"), ("format", "--check")):
        done = call(os.environ, tmp_path, "ruff", *words, "--isolated", "--no-cache", "--line-length", "120", "made")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("My-Board", "'My-Board' is no name for a target"),
        ("my--board", "is no name for a target"),
        ("../evil", "is no name for a target"),
        ("2board", "is no name for a target"),
        ("qpipe-board", "names a distribution, not a target"),
        ("cpu-local", "there is a target cpu-local already"),
        ("onnxruntime", "there is a backend onnxruntime already"),
    ],
)
def test_names_that_cannot_be(tmp_path, monkeypatch, capsys, name, words):
    monkeypatch.chdir(tmp_path)
    assert run_app(["new-target", name]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_refused_and_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qpipe-my-board").mkdir()
    (tmp_path / "qpipe-my-board" / "mine.txt").write_text("mine")
    assert run_app(["new-target", "my-board", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["message"] == "qpipe-my-board is there already"
    assert [path.name for path in tmp_path.rglob("*")] == ["qpipe-my-board", "mine.txt"]


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.chdir(tmp_path)
    assert run_app(["new-target", "my-board", "--folder", "file/plugin"]) == 2
    assert "file/plugin cannot be written" in capsys.readouterr().err
