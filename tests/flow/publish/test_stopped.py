"""Ctrl-C is heeded while MLflow is reached and while cells are logged, and always before an alias is moved."""

import threading
import time
from types import SimpleNamespace

import pytest

from qpipe.errors import Interrupted
from qpipe.flow.publish import log
from qpipe.flow.publish.connection import Reached, Reaching
from qpipe.flow.publish.waiting import answered
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
    monkeypatch.setattr(log, "promote_each", lambda *_: pytest.fail("promoted"))
    target = SimpleNamespace(name="cpu")
    workplace = SimpleNamespace(pipeline=SimpleNamespace(promote=object(), targets=[target]))
    cells = tuple(SimpleNamespace(key=key, evidence=None, target="cpu") for key in "ab")
    tracker = SimpleNamespace(log_cell=log_cell, warnings=())
    plots = SimpleNamespace(of=lambda _: NO_PLOTS)
    with pytest.raises(Interrupted):
        log.publish(tracker, "parent", workplace, cells, plots=plots, promote=True, stop=stop)
    assert seen == logged


@pytest.fixture
def hung(monkeypatch):
    """A server that takes requests and says nothing, until the test is over."""
    monkeypatch.setattr("qpipe.flow.publish.connection.GRACE_S", 0.1)
    over = threading.Event()
    yield lambda *_: over.wait(60)
    over.set()


def test_ctrl_c_does_not_wait_for_a_server_that_says_nothing(hung):
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    before = time.monotonic()
    with pytest.raises(Interrupted):
        answered(hung, stop, grace_s=0.1)
    assert time.monotonic() - before < 5


def test_a_request_that_ends_soon_after_ctrl_c_is_waited_for():
    stop = threading.Event()
    stop.set()
    assert answered(lambda: time.sleep(0.05) or "done", stop) == "done"
    with pytest.raises(ValueError, match="refused"):
        answered(lambda: int("refused"), stop)


def test_ctrl_c_is_heeded_while_the_parent_run_is_closed(hung, monkeypatch):
    monkeypatch.setattr("qpipe.flow.publish.waiting.GRACE_S", 0.1)
    monkeypatch.setattr(log, "_reported", lambda *_: True)
    stop, tracker = threading.Event(), SimpleNamespace(finish=lambda *_, **__: hung())
    threading.Timer(0.05, stop.set).start()
    before = time.monotonic()
    with pytest.raises(Interrupted):
        log.finish(tracker, "parent", None, SimpleNamespace(exit_code=0), plots=NO_PLOTS, stop=stop)
    assert time.monotonic() - before < 5


@pytest.mark.parametrize("where", ["reaching", "finishing"])
def test_a_run_is_given_up_although_nobody_answers(hung, where):
    reached = Reached(tracker=SimpleNamespace(finish=hung), parent="parent")
    reach = {"reaching": lambda _: hung() and Reached(), "finishing": lambda _: reached}[where]
    reaching = Reaching(reach, threading.Event())
    if where == "finishing":
        assert reaching.wait() is reached
    before = time.monotonic()
    reaching.give_up(interrupted=True)
    assert time.monotonic() - before < 5
