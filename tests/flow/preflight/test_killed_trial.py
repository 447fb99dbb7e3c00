"""A model whose trial was killed from outside is not called broken."""

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from qpipe.errors import ModelError, UnavailableError
from qpipe.execute.children.exits import Usage, read_exit
from qpipe.flow.preflight import probes
from qpipe.records.target import Limits


@pytest.mark.parametrize(
    ("number", "ended", "error"),
    [
        (signal.SIGKILL, "ok", UnavailableError),
        (signal.SIGTERM, "ok", UnavailableError),
        (signal.SIGSEGV, "ok", ModelError),
        (signal.SIGKILL, "memory", ModelError),  # by us, at the limit
    ],
)
def test_who_killed_the_trial(monkeypatch, tmp_path, number, ended, error):
    usage = Usage(status=-number, seconds=1.0, cpu_seconds=1.0, peak_rss_bytes=0)
    (tmp_path / "log.txt").touch()
    limits = Limits(timeout_s=1.0, memory_bytes=1 << 30)
    monkeypatch.setattr(probes, "run_guarded", lambda *_, **__: read_exit(tmp_path, ended, usage, limits))
    monkeypatch.setattr(probes, "_with_work", lambda workplace: workplace.models)
    model = SimpleNamespace(file=SimpleNamespace(path=Path("digits.onnx")))
    cell = SimpleNamespace(target=SimpleNamespace(limits=limits))
    with pytest.raises(error, match=r"digits\.onnx: the reference runner"):
        probes.try_models(SimpleNamespace(models=[model], cells=[cell], nursery=None))
