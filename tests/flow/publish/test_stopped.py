"""Ctrl-C is heeded while MLflow is reached and while cells are logged, and always before an alias is moved."""

import threading
import time
from types import SimpleNamespace

import pytest

from qpipe.errors import Interrupted
from qpipe.flow.publish import log
from qpipe.flow.publish.connection import Reached, Reaching
from qpipe.report import NO_PLOTS


def test_no_run_is_begun_for_whoever_has_gone():
    stop = threading.Event()

    def reach(unwanted: threading.Event) -> Reached:
        assert unwanted.wait(30)
        return Reached()

    reaching = Reaching(reach, stop)
    threading.Timer(0.05, stop.set).start()
    before = time.monotonic()
    with pytest.raises(Interrupted):
        reaching.wait()
    assert time.monotonic() - before < 5
    reaching.give_up(interrupted=True)


def test_what_mlflow_refused_is_said_rather_than_that_it_stopped_the_work():
    def reach(_: threading.Event) -> Reached:
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        Reaching(reach, threading.Event()).wait()


@pytest.mark.parametrize(("pressed_at", "logged"), [(0, []), (1, ["a"]), (2, ["a", "b"])])
def test_nothing_is_promoted_after_ctrl_c(monkeypatch, pressed_at, logged):
    stop, seen = threading.Event(), []

    def log_cell(_parent, result, **_):
        seen.append(result.key)
        if len(seen) == pressed_at:
            stop.set()
        return SimpleNamespace(model_id=None)

    if pressed_at == 0:
        stop.set()
    monkeypatch.setattr(log, "_dataset", lambda _: None)
    monkeypatch.setattr(log, "_promote_each", lambda *_: pytest.fail("promoted"))
    target = SimpleNamespace(name="cpu")
    workplace = SimpleNamespace(pipeline=SimpleNamespace(promote=object(), targets=[target]))
    cells = tuple(SimpleNamespace(key=key, evidence=None, target="cpu") for key in "ab")
    tracker = SimpleNamespace(log_cell=log_cell, warnings=())
    plots = SimpleNamespace(of=lambda _: NO_PLOTS)
    with pytest.raises(Interrupted):
        log.publish(tracker, "parent", workplace, cells, plots=plots, promote=True, stop=stop)
    assert seen == logged
