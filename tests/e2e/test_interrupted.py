"""Ctrl-C and `kill -9` in mid-run: no process survives, the store is whole, and the next run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

pytestmark = pytest.mark.usefixtures("fake")

PATIENCE_S = 90


def wait_until(found, process: subprocess.Popen, what: str):
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if value := found():
            return value
        assert process.poll() is None, f"ended before {what}: {process.communicate()}"
        time.sleep(0.05)
    raise TimeoutError(what)


def children(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def hanging(place: Path, process: subprocess.Popen) -> list[psutil.Process]:
    """The children, once the good cell is done and only the hanging one is left, and the seed that they come from."""

    def found():
        done = list((place / ".qpipe" / "keys" / "evaluation").glob("*.json"))
        running = children(process)
        return running if len(done) >= 1 and len(running) == 2 else None

    return wait_until(found, process, "the cell that hangs")


def logged(place: Path, process: subprocess.Popen) -> None:
    """Wait for the run in MLflow, which is reached beside the children's work."""

    def found():
        if not (place / "mlflow.db").exists():
            return None
        mlflow = MlflowClient(f"sqlite:///{place}/mlflow.db")
        return mlflow.search_runs([one.experiment_id for one in mlflow.search_experiments()])

    wait_until(found, process, "the run in MLflow")


@pytest.fixture
def pipeline(place, make):
    """One target whose float engine and int8 engine work, and one that hangs while it builds."""
    make.target(place, "good")
    make.target(place, "hangs", build="hang")
    return make.pipeline(place, targets=["good", "hangs"], gates={"quality": {"margin": 0.05}, "finite": {}})


def whole(place: Path) -> None:
    """Nothing half-made lies in the store."""
    from qpipe.store import Store

    store = Store(place / ".qpipe")
    for folder in (place / ".qpipe" / "objects").iterdir():
        store.folder(folder.name)


def next_run(place: Path, make, qpipe_in):
    """The same pipeline after the board was repaired: what was finished is not made again."""
    make.target(place, "hangs", build="refuse")
    return qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")


def test_ctrl_c_in_mid_run(place, make, qpipe_in, pipeline):
    process = make.start(place, "run", "small.yaml", "--no-profile", "--json", "--workers", "1")
    running = hanging(place, process)
    logged(place, process)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert time.monotonic() - began < 15
    assert json.loads(out)["error"]["code"] == 130
    assert "Traceback" not in err
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in running)
    mlflow = MlflowClient(f"sqlite:///{place}/mlflow.db")
    (experiment,) = [one for one in mlflow.search_experiments() if one.name == "small"]
    (parent,) = mlflow.search_runs([experiment.experiment_id])
    assert parent.info.status == "KILLED"
    whole(place)
    assert not list((place / ".qpipe" / "tmp").iterdir())
    made = {path.name: path.stat().st_mtime_ns for path in (place / ".qpipe" / "objects").iterdir()}
    again = next_run(place, make, qpipe_in)
    assert again.cell("int8/good")["verdict"] == "PASS"
    assert (
        made.items()
        <= {path.name: path.stat().st_mtime_ns for path in (place / ".qpipe" / "objects").iterdir()}.items()
    )


@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,)])
def test_pressed_twice_or_terminated(place, make, signals):
    make.pipeline(place, targets=[make.target(place, "hangs", build="hang")])
    process = make.start(place, "run", "small.yaml", "--no-profile", "--offline", "--json")
    running = wait_until(lambda: len(found := children(process)) == 3 and found, process, "two cells that hang")
    for number in signals:
        os.kill(process.pid, number)
        time.sleep(0.02)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, json.loads(out)["error"]["code"]) == (130, 130)
    assert "Traceback" not in err
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in running)


def test_kill_9_of_the_parent(place, make, qpipe_in, pipeline):
    process = make.start(place, "run", "small.yaml", "--no-profile", "--workers", "1", "--json")
    running = hanging(place, process)
    logged(place, process)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    _, alive = psutil.wait_procs(running, timeout=10)
    assert not alive
    whole(place)
    mlflow = MlflowClient(f"sqlite:///{place}/mlflow.db")
    (experiment,) = [one for one in mlflow.search_experiments() if one.name == "small"]
    (orphan,) = mlflow.search_runs([experiment.experiment_id])
    assert orphan.info.status == "RUNNING"
    assert orphan.data.tags["qpipe.heartbeat"].startswith(f"{process.pid}@")
    made = {path.name: path.stat().st_mtime_ns for path in (place / ".qpipe" / "objects").iterdir()}
    make.target(place, "hangs", build="hang", limits={"timeout_s": 3})  # limits are no ingredient: the same run
    again = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    assert again.json["mlflow_run_id"] == orphan.info.run_id
    assert again.cell("int8/good")["verdict"] == "PASS"
    assert again.cell("int8/hangs")["status"] == "timeout"
    assert (
        made.items()
        <= {path.name: path.stat().st_mtime_ns for path in (place / ".qpipe" / "objects").iterdir()}.items()
    )
    assert not list((place / ".qpipe" / "tmp").iterdir())
    assert len(MlflowClient(f"sqlite:///{place}/mlflow.db").search_model_versions()) == 1


def test_ctrl_c_while_waiting_for_the_measuring_lock(place, make):
    """Another measurement holds the host: waiting for it can be interrupted like work."""
    from qpipe.measure.host import measuring

    make.pipeline(place)
    with measuring(lambda _: None):
        process = make.start(place, "run", "small.yaml", "--offline", "--json")
        wait_until(
            lambda: len(list((place / ".qpipe" / "keys" / "evaluation").glob("*.json"))) == 2 and not children(process),
            process,
            "both cells",
        )
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert json.loads(out)["error"]["code"] == 130
