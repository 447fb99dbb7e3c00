"""Commands that look around leave no file behind, and refuse what they cannot write in one line."""

from __future__ import annotations

import signal

import pytest

from qpipe.cli.guarded import run_app
from qpipe.testing.models import write_small_model


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "QPIPE_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["doctor"], {0, 5}),
        (["targets"], {0}),
        (["plugins"], {0}),
        (["gate", "last"], {2}),
        (["report"], {2}),
        (["promote", "last"], {2}),
        (["sync"], {2}),
        (["history", "anything"], {2}),
        (["rollback", "anything"], {2}),
        (["verify", "models:/anything@champion"], {2}),
    ],
)
def test_nothing_is_left_behind(arguments, code, tmp_path, capsys):
    assert run_app(arguments) in code
    assert list(tmp_path.iterdir()) == []
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.startswith("error: ") == (code == {2})


def test_a_draft_is_written_once_and_can_be_read(tmp_path, capsys):
    write_small_model(tmp_path)
    assert run_app(["init", "small.onnx", "--out", "draft.yaml"]) == 0
    assert "small.onnx" in (tmp_path / "draft.yaml").read_text()
    assert run_app(["init", "small.onnx", "--out", "draft.yaml"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert run_app(["init", "small.onnx", "--out", "no/such/folder.yaml"]) == 2
    assert "No such file or directory" in capsys.readouterr().err
    assert run_app(["plan", "draft.yaml"]) == 2  # the rows that it names are for the user to give
    assert ".npz: no such data file" in capsys.readouterr().err
