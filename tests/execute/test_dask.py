"""Real `dask scheduler` and `dask worker` processes on loopback: in-process clusters behave differently."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

import qpipe
from qpipe.cli.guarded import run_app
from qpipe.errors import ConfigError, Interrupted, UnavailableError
from qpipe.execute.elsewhere.handshake import (
    Answer,
    Greeting,
    agreed_offer,
    check_greetings,
    own_versions,
    store_identity,
    unmet,
)
from qpipe.execute.elsewhere.inputs import Input, input_files, localize, share_inputs
from qpipe.flow.conduct import conduct
from qpipe.flow.options import RunOptions
from qpipe.flow.workplace import open_workplace
from qpipe.planning.offers import Offer
from qpipe.records.data import DataSpec, RoleSpec
from qpipe.records.engine import Availability, Ready
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target
from qpipe.report.document import run_document
from qpipe.store import Store
from qpipe.testing.fake import fake_site
from qpipe.testing.models import small_rows, write_small_model

DASK = (sys.executable, "-m", "dask")
LABELS = ("board", "slow", "stuck")
PIPELINE = """
name: small
model: {path: small.onnx}
task: classification
data:
  inputs: {rows: image}
  label: label
  batch: 16
  calibration: {npz: calibration.npz}
  gate: {npz: gate.npz}
targets: [TARGET]
recipes: [int8]
gates:
  quality: {margin: 0.2}
  finite: {}
  placement: {}
  size: {at_most_ratio: 2.0}
  speedup: {at_least: 1.0, required: false}
profile: {processes: 2, rounds: 4, blocks: 2, min_seconds: 0.01, warmup: 1, max_rounds: 4, memory_processes: 1}
"""
SLOW = "{slow_ms: 300, float_slow_ms: 300}"
OPTIONS = {"board": "{slow_ms: 2, float_slow_ms: 4}", "slow": SLOW, "stuck": "{build: hang}"}


class Cluster:
    """A scheduler, and the workers that a test starts."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.workers: list[psutil.Process] = []
        self._stack = stack
        address = folder / "scheduler.json"
        quiet = ("--no-dashboard", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(address))
        self._start(*DASK, "scheduler", *quiet)
        _wait_for(lambda: address.exists() and address.read_text().strip())
        self.address = json.loads(address.read_text())["address"]

    def worker(self, *labels: str, count: int) -> psutil.Process:
        """One more worker; returns once the scheduler knows of `count`."""
        resources = " ".join(f"target:{label}=1" for label in labels)
        quiet = ("--no-dashboard", "--no-nanny", "--host", "127.0.0.1", "--local-directory", str(self.folder))
        limits = ("--nthreads", "1", "--memory-limit", "0", "--resources", resources)
        process = self._start(*DASK, "worker", self.address, *quiet, *limits)
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=30)
        self.workers.append(psutil.Process(process.pid))
        return self.workers[-1]

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        log = self._stack.enter_context((self.folder / f"{time.monotonic_ns()}.log").open("wb"))
        code = os.pathsep.join((str(fake_site()), str(Path(qpipe.__file__).parents[1])))
        environment = os.environ | {"PYTHONPATH": code, "XDG_CACHE_HOME": str(self.folder / "its-cache")}
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=environment)
        self._stack.callback(_end, process)
        return process


def _end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(true, seconds=60.0, future=None):
    until = time.monotonic() + seconds
    while not true():
        assert future is None or not future.done(), future.result()
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


@contextmanager
def cluster_in(folder):
    with ExitStack() as stack:
        yield Cluster(folder, stack)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with cluster_in(tmp_path_factory.mktemp("cluster")) as found:
        found.worker(*LABELS, count=1)
        yield found


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a model, rows and pipelines for three boards of the fake backend; not on any import path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "our-cache"))
    monkeypatch.chdir(tmp_path)
    model = write_small_model(tmp_path)
    (tmp_path / "targets").mkdir()
    for name, seed in (("calibration", 3), ("gate", 4)):
        rows = small_rows(96, seed)
        np.savez(tmp_path / f"{name}.npz", rows=rows, label=_answers(model, rows))
    for name in LABELS:
        board = f"name: {name}\nbackend: fake\nbatch_sizes: [1]\noptions: {OPTIONS[name]}\n"
        (tmp_path / "targets" / f"{name}.yaml").write_text(board)
        (tmp_path / f"{name}.yaml").write_text(PIPELINE.replace("TARGET", name))
    return tmp_path


def _answers(model, rows):
    import onnxruntime as ort

    session = ort.InferenceSession(model.file.path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": rows})[0].argmax(axis=1)


def run(path, **options):
    stop = options.pop("stop", None)
    chosen = RunOptions(offline=True, **options)
    return conduct(open_workplace(path, chosen), chosen, stop=stop)


def children_of(worker):
    return [child for child in worker.children(recursive=True) if "child.py" in " ".join(_command(child))]


def _command(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def without_timings(document):
    for cell in document["cells"]:
        cell["engine"].pop("path")
        for gate in ("observed", "low", "high", "reason", "advice", "verdict"):
            cell["gates"].get("speedup", {}).pop(gate, None)
        profile = cell["profile"]
        profile.pop("peak_rss_bytes")
        for batch in profile["batch"].values():
            for name in ("latency_ms", "baseline_ms"):
                batch[name] = sorted(batch[name])
            batch["ratio"] = sorted(batch["ratio"] or ())
    return json.loads(json.dumps(document))


def test_a_run_on_a_worker_gives_what_a_run_here_gives(place, cluster, monkeypatch):
    """Two caches and a store behind a URL: nothing but text and the store connects the two sides."""
    shared = f"local://{place}/shared"
    there = run(place / "board.yaml", executor="dask", scheduler=cluster.address, store=shared)
    assert there.exit_code == 0, there
    with monkeypatch.context() as here:
        here.syspath_prepend(str(fake_site()))
        local = run(place / "board.yaml", store=str(place / "local"))
    found, expected = (without_timings(run_document(result)) for result in (there, local))
    assert {cell["profile"]["batch"]["1"]["latency_ms"][0] for cell in found["cells"]} == {"p50"}
    assert found == expected
    again = run(place / "board.yaml", executor="dask", scheduler=cluster.address, store=shared)
    assert [cell.cached for cell in again.cells] == [True, True]


@contextmanager
def running(path, **options):
    """A run in a thread; it is stopped at the end of the block, whatever happens there."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(run, path, stop=stop, **options), stop
        finally:
            stop.set()


def test_a_killed_worker_is_survived_and_one_that_stays_away_is_told(place, tmp_path_factory, monkeypatch):
    with cluster_in(tmp_path_factory.mktemp("killing")) as cluster:
        first = cluster.worker("slow", count=1)
        options = {"executor": "dask", "scheduler": cluster.address, "store": str(place / "st"), "profile": False}
        with running(place / "slow.yaml", **options) as (future, _):
            _wait_for((place / "st" / "keys" / "engine").is_dir, future=future)
            _wait_for(lambda: children_of(first), future=future)
            orphans = children_of(first)
            first.kill()
            assert not psutil.wait_procs(orphans, timeout=5)[1], "a child outlived its worker"
            assert not future.done()
            second = cluster.worker("slow", "stuck", count=1)
            assert [cell.status for cell in future.result(60).cells] == ["ok", "ok"]

        monkeypatch.setattr("qpipe.execute.elsewhere.gather.LOOK_S", 0.2)
        monkeypatch.setattr("qpipe.execute.elsewhere.gather.ABSENCE_S", 1.0)
        with running(place / "stuck.yaml", **options) as (future, _):
            _wait_for(lambda: children_of(second), future=future)
            second.kill()
            result = future.result(30)
            assert (result.exit_code, [cell.status for cell in result.cells]) == (5, ["failed", "failed"])
            assert "have gone" in result.cells[0].reason
            assert result.cells[0].hint


def test_stopping_ends_the_children_of_the_workers(place, cluster):
    options = {"executor": "dask", "scheduler": cluster.address, "store": str(place / "st")}
    with running(place / "stuck.yaml", **options) as (future, stop):
        begun = place / "st" / "keys" / "reference"
        _wait_for(lambda: begun.is_dir() and children_of(cluster.workers[0]), future=future)
        stop.set()
        with pytest.raises(Interrupted):
            future.result(10)
        _wait_for(lambda: not children_of(cluster.workers[0]), 5.0)


def test_a_label_that_nobody_offers_is_found_before_work(place, cluster, capsys):
    text = (place / "board.yaml").read_text()
    (place / "other.yaml").write_text(text.replace("[board]", "[board, {name: orin, base: board}]"))
    options = ["--executor", "dask", "--scheduler", cluster.address, "--offline", "--store", str(place / "st")]
    assert run_app(["run", str(place / "other.yaml"), *options, "--json"]) == 5
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["message"] == "no Dask worker offers target:orin"
    assert f'dask worker {cluster.address} --resources "target:orin=1" --nthreads 1 --memory-limit 0' in error["hint"]
    assert not list((place / "st").glob("objects/*")), "nothing was begun"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--executor", "dask"], 2, "the executor dask needs a scheduler"),
        (["--executor", "dsk"], 2, "no executor 'dsk'; did you mean 'dask'?"),
        (["--scheduler", "tcp://127.0.0.1:1"], 2, "--scheduler is for the executor dask"),
        (
            ["--executor", "dask", "--scheduler", "tcp://h:1", "--workers", "2"],
            2,
            "--workers is for the local executor",
        ),
        (["--executor", "dask", "--scheduler", "nonsense://x"], 2, "no address of a Dask scheduler"),
    ],
)
def test_options_that_do_not_go_together(place, capsys, options, code, words):
    assert run_app(["run", str(place / "board.yaml"), *options, "--offline"]) == code
    assert words in capsys.readouterr().err


def test_a_scheduler_that_does_not_answer(place, monkeypatch, capsys):
    monkeypatch.setattr("qpipe.execute.elsewhere.dask.PATIENCE_S", 0.5)
    options = ["--executor", "dask", "--scheduler", "tcp://127.0.0.1:9", "--offline"]
    assert run_app(["run", str(place / "board.yaml"), *options]) == 5
    error = capsys.readouterr().err
    assert "error: the Dask scheduler tcp://127.0.0.1:9 does not answer" in error
    assert "dask scheduler" in error


def greeting(seen, /, **changes):
    return replace(Greeting(host="orin", versions=OURS, store=store_identity(seen), trouble=""), **changes)


OURS = replace(own_versions(), plugins=(("metric mine", "scores 1.0+aa"), ("stage prune", "pruning 2.0+bb")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"versions": replace(OURS, qpipe="9.9")}, "has qpipe 9.9; this machine has"),
        ({"versions": replace(OURS, source="0")}, "has other code of qpipe"),
        (
            {"versions": replace(OURS, packages=(("onnxruntime", "1.0"), *OURS.packages[1:]))},
            "has onnxruntime 1.0; here",
        ),
        (
            {"versions": replace(OURS, plugins=(("stage prune", "pruning 2.0+cc"),))},
            "has stage prune of pruning 2.0+cc; here it is of pruning 2.0+bb",
        ),
        ({"store": "another"}, "what lies there is not the same store"),
        ({"trouble": "read-only"}, "does not see the store"),
    ],
)
def test_the_handshake_refuses_what_would_work_otherwise(tmp_path, monkeypatch, changes, words):
    store = Store(tmp_path)
    monkeypatch.setattr("qpipe.execute.elsewhere.handshake.own_versions", lambda: OURS)
    check_greetings(
        {"tcp://orin:1": greeting(store, versions=replace(OURS, plugins=(("stage other", "x 1+dd"),)))}, store
    )
    check_greetings({"tcp://orin:1": greeting(store)}, store)
    with pytest.raises(ConfigError, match=r"worker tcp://orin:1 \(orin\)") as caught:
        check_greetings({"tcp://orin:1": greeting(store, **changes)}, store)
    assert words in caught.value.message
    assert caught.value.hint


def answer(**changes):
    ready = Availability(build=Ready(), run=Ready(), fingerprint="one", toolchain=(("t", "1"),))
    return Answer(offer=Offer(availability=replace(ready, **changes), scheme=Scheme(name="s")))


def test_workers_of_one_label_agree():
    target = Target(name="orin", backend="b")
    assert agreed_offer(target, {"a": answer(), "b": answer()}) == answer().offer
    with pytest.raises(ConfigError, match="workers a and b both offer target:orin and differ in fingerprint"):
        agreed_offer(target, {"a": answer(), "b": answer(fingerprint="two")})
    with pytest.raises(UnavailableError, match="worker a offers target:orin: no such plugin"):
        agreed_offer(target, {"a": Answer(offer=None, message="no such plugin", hint="pip install it")})
    assert "--resources" in unmet(("orin",), "tcp://head:8786").hint


def test_inputs_travel_by_digest(tmp_path):
    model = write_small_model(tmp_path)
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", x=np.arange(3))
    data = DataSpec(
        inputs=(),
        label=None,
        preprocess=(),
        roles=(RoleSpec(role="search", npz=tmp_path / "a.npz"), RoleSpec(role="gate", npz=tmp_path / "b.npz")),
    )
    files = input_files(data, model)
    assert files == (model.file.path, tmp_path / "a.npz", tmp_path / "b.npz")
    store = Store(tmp_path / "st")
    inputs = share_inputs(files, store)
    assert inputs == share_inputs(files, store)
    request = json.dumps({"model": str(files[0]), "list": [str(files[1]), 1, None], "other": f"{files[0]}.txt"})
    found = json.loads(localize(request, inputs, store))
    assert Path(found["model"]).read_bytes() == files[0].read_bytes()
    assert Path(found["model"]).is_relative_to(tmp_path / "st")
    assert Path(found["list"][0]).name == "a.npz"
    assert found["list"][1:] == [1, None]
    assert found["other"] == f"{files[0]}.txt"


def test_a_model_travels_with_its_external_data(tmp_path):
    import onnx

    model = write_small_model(tmp_path)
    folder = tmp_path / "large"
    folder.mkdir()
    loaded = onnx.load(model.file.path)
    onnx.save_model(
        loaded,
        folder / "m.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location="w.bin",
        size_threshold=0,
    )
    store = Store(tmp_path / "st")
    (found,) = share_inputs([folder / "m.onnx"], store)
    assert isinstance(found, Input)
    assert sorted(path.name for path in store.folder(found.object).iterdir()) == ["m.onnx", "w.bin"]
    (folder / "w.bin").write_bytes((folder / "w.bin").read_bytes()[::-1])
    (other,) = share_inputs([folder / "m.onnx"], store)
    assert (store.folder(other.object) / "w.bin").read_bytes() == (folder / "w.bin").read_bytes()
