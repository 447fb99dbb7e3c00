"""Tasks of a scheduler on their way home, with a scripted client: who is cancelled, and whose label has gone."""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace

import pytest

from qpipe.errors import UnavailableError
from qpipe.execute.children.exits import Exit
from qpipe.execute.children.watch import Silence
from qpipe.execute.elsewhere import dask, gather, labels
from qpipe.execute.elsewhere.gather import Gathering
from qpipe.execute.local import Job
from qpipe.records.codec import encode
from qpipe.records.target import Limits, Target
from qpipe.store import Store

OK = Exit(
    kind="ok",
    code=0,
    signal=None,
    seconds=1.0,
    cpu_seconds=1.0,
    peak_rss_bytes=1,
    result="done",
    error=None,
    log_tail="",
)


class Future:
    """A task that is done at once, or never."""

    def __init__(self, name, *, done):
        self.name, self.status = name, "finished" if done else "pending"

    def add_done_callback(self, tell):
        if self.status == "finished":
            tell(self)

    def result(self):
        return encode(OK)


class Client:
    """Runs what it is told to, and keeps what was cancelled."""

    status = "running"

    def __init__(self, *, stuck=(), resources=None):
        self.stuck, self.submitted, self.cancelled = stuck, [], []
        self.workers = {"tcp://a": {"resources": resources if resources is not None else {"target:board": 1}}}

    def submit(self, _function, text, **_):
        name = next(label for label in ("reference", "one", "two") if f'"label":"{label}"' in text)
        self.submitted.append(Future(name, done=name not in self.stuck))
        return self.submitted[-1]

    def cancel(self, futures):
        self.cancelled += [one.name for one in futures]

    def scheduler_info(self):
        return {"workers": self.workers}

    def subscribe_topic(self, *_): ...

    def unsubscribe_topic(self, *_): ...


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Jobs of an executor whose scheduler is scripted; gives how they ended."""
    monkeypatch.setattr(gather, "TICK_S", 0.01)
    monkeypatch.setattr(gather, "LOOK_S", 0.02)
    monkeypatch.setattr(gather, "ABSENCE_S", 0.1)

    def call(client, *, stop=None, after=None):
        @contextmanager
        def connected(_):
            yield client

        monkeypatch.setattr(dask, "connect", connected)
        stop, found = stop or threading.Event(), {}

        def done(job, ended):
            found[job.label] = (ended.kind, ended.result or ended.error.message)
            if job.label == after:
                stop.set()

        jobs = [
            Job(label=label, entry="m:f", request="{}", limits=Limits(), target="" if label == "reference" else "board")
            for label in ("one", "reference", "two")
        ]
        executor = dask.DaskExecutor(address="tcp://h:1", store=Store(tmp_path / "store"))
        executor.run(jobs, watch=Silence(), stop=stop, done=done)
        return found

    return call


def test_references_are_computed_before_the_cells_that_need_them(run):
    client = Client()
    assert run(client) == dict.fromkeys(("reference", "one", "two"), ("ok", "done"))
    assert [one.name for one in client.submitted] == ["reference", "one", "two"]
    assert client.cancelled == []


def test_after_a_stop_the_rest_is_not_begun(run):
    client = Client()
    assert list(run(client, after="reference")) == ["reference"]
    assert [one.name for one in client.submitted] == ["reference"]


def test_what_runs_at_a_stop_is_cancelled(run):
    client = Client(stuck=("two",))
    assert list(run(client, after="one")) == ["reference", "one"]
    assert client.cancelled == ["two"]


def test_a_stop_in_the_first_wave_cancels_it(run):
    client, stop = Client(stuck=("reference",)), threading.Event()
    threading.Timer(0.05, stop.set).start()
    assert run(client, stop=stop) == {}
    assert client.cancelled == ["reference"]


def test_tasks_whose_label_nobody_offers_for_long_are_given_up_and_the_others_are_not(run):
    client = Client(stuck=("two",), resources={"target:other": 1})
    found = run(client)
    assert found["one"] == ("ok", "done")
    kind, why = found["two"]
    assert (kind, "have gone" in why) == ("failed", True)
    assert client.cancelled == ["two"]


def test_a_label_that_comes_back_is_waited_for_anew(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(gather.time, "monotonic", lambda: now[0])
    client, said = Client(resources={}), []
    gathering = Gathering(client, SimpleNamespace(say=said.append), threading.Event())
    gathering._pending = {Future("two", done=False): "board"}
    assert gathering._absent() == set()
    now[0] = gather.ABSENCE_S - 1
    client.workers["tcp://a"]["resources"] = {"target:board": 1}
    assert gathering._absent() == set()
    client.workers["tcp://a"]["resources"] = {}
    now[0] = gather.ABSENCE_S + 1
    assert gathering._absent() == set()
    now[0] += gather.ABSENCE_S
    assert gathering._absent() == {"board"}
    assert len(said) == 2


def test_the_next_of_many_pipelines_waits_for_a_worker_that_was_there_and_for_no_other(monkeypatch, caplog):
    monkeypatch.setattr(gather, "ABSENCE_S", 0.05)
    monkeypatch.setattr(gather, "LOOK_S", 0.02)
    monkeypatch.setattr(labels, "_met", set())
    client = Client(resources={})
    ask = partial(labels.offering, client, "tcp://h:1", ["board"])

    def come_back(_):
        client.workers["tcp://a"]["resources"] = {"target:board": 1}

    with pytest.raises(UnavailableError, match="offers target:board"):
        ask()
    assert not caplog.messages, "it was never there: told at once"
    come_back(None)
    assert ask() == {"board": ("tcp://a",)}
    client.workers["tcp://a"]["resources"] = {}
    with monkeypatch.context() as restarting:
        restarting.setattr(labels.time, "sleep", come_back)
        assert ask() == {"board": ("tcp://a",)}
    client.workers["tcp://a"]["resources"] = {}
    with pytest.raises(UnavailableError):
        ask()
    assert caplog.messages == ["no Dask worker offers target:board any more: waiting 0.05 s for one"] * 2
    with pytest.raises(UnavailableError):
        ask()
    assert len(caplog.messages) == 2, "waited for once"


def test_a_worker_that_goes_while_it_is_asked_is_left_out(tmp_path, monkeypatch):
    """Its questions are answered here, by what a worker would run."""
    monkeypatch.setattr(labels, "_met", set())
    client = Client()
    client.workers["tcp://b"] = {"resources": {"target:board": 1}}
    monkeypatch.setattr(dask, "connect", lambda _: nullcontext(client))

    def ask(question, text, *, workers, on_error):
        assert on_error == "return"
        return {one: OSError("timed out") if one == "tcp://a" else question(text) for one in workers}

    client.run = ask
    executor = dask.DaskExecutor(address="tcp://h:1", store=Store(tmp_path / "store"))
    target = Target(name="board", backend="onnxruntime")
    with pytest.raises(UnavailableError, match="worker tcp://a cannot answer: OSError: timed out") as caught:
        executor.survey([target])
    assert "look at its log" in caught.value.hint

    def go(question, text, *, workers, on_error):
        client.workers.pop("tcp://a", None)
        return ask(question, text, workers=workers, on_error=on_error)

    client.run = go
    assert list(executor.survey([target])) == ["board"]
