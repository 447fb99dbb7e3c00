"""What `qpipe promote` is told: a run, a cell of a run, or a cell by its label."""

from types import SimpleNamespace

import pytest

from qpipe.cli.guarded import run_app
from qpipe.flow.finished import runs
from qpipe.flow.publish import promotion


@pytest.mark.parametrize(
    ("told", "order"),
    [
        (["a1"], ("a1", None)),
        (["a1", "--cell", "m/int8/t"], ("a1", "m/int8/t")),
        (["nightly/m/int8/t"], ("b2", "m/int8/t")),
    ],
)
def test_a_run_and_a_cell_are_told_apart(monkeypatch, tmp_path, told, order):
    monkeypatch.chdir(tmp_path)
    newest = SimpleNamespace(result=SimpleNamespace(run_id="b2"))
    asked = []
    monkeypatch.setattr(runs, "latest_with_cell", lambda _, label: (newest, label.removeprefix("nightly/")))
    monkeypatch.setattr(promotion, "promote_run", lambda _, given, **__: asked.append((given.run_id, given.cell)) or ())
    assert run_app(["promote", *told]) == 0
    assert asked == [order]
