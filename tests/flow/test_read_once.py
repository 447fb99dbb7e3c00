"""What many pipelines share is read once per command."""

import json
from collections import Counter

import pytest
import yaml
from small_pipeline import write_small_pipeline

from qpipe.cli.guarded import run_app
from qpipe.config import document
from qpipe.models import facts
from qpipe.plugins import loader, packages

MANY = 20
"""More models than were remembered once."""


@pytest.fixture
def counted(monkeypatch):
    """How often each was called."""
    count = Counter()

    def follow(module, name, key):
        before = getattr(module, name)

        def counting(*args, **kwargs):
            count[f"{name} {key(*args, **kwargs)}"] += 1
            return before(*args, **kwargs)

        monkeypatch.setattr(module, name, counting)

    follow(document, "_compose", lambda path, _text: path.name)
    follow(facts, "_load", lambda path: path.name)
    follow(loader, "entry_points", lambda **_: "")
    follow(packages, "version", lambda name: name)
    return count


def test_a_plan_of_many_files_parses_each_and_asks_for_plugins_and_packages_once(tmp_path, counted, capsys):
    write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=["int8"])
    model = (tmp_path / "small.onnx").read_bytes()
    for number in range(MANY):
        (tmp_path / f"{number}.onnx").write_bytes(model)
        own = {"base": "small.yaml", "name": str(number), "model": {"path": f"{number}.onnx"}}
        (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump(own))
    files = [str(tmp_path / f"{number}.yaml") for number in range(MANY)]
    assert run_app(["plan", *files, "--store", str(tmp_path / "store"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["pipelines"]) == MANY
    assert {name: times for name, times in counted.items() if times > 1} == {}
