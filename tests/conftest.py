"""For all tests: what one of them does to the process is not seen by the next."""

import fcntl
import gc
import os
import signal
import sys
from pathlib import Path

import pytest

MLFLOW = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")


def mlflow_state() -> dict[str, str | None]:
    """MLflow's settings for the whole process: its variables, and what `set_tracking_uri` left."""
    state = {name: os.environ.get(name) for name in MLFLOW}
    utils = sys.modules.get("mlflow.tracking._tracking_service.utils")
    return state | {"set_tracking_uri": utils._tracking_uri if utils else None}


@pytest.fixture(autouse=True)
def mlflow_as_before():
    """No test, and nothing of ours that it calls, leaves MLflow pointed elsewhere."""
    before = mlflow_state()
    yield
    after = mlflow_state()
    if after != before:
        import mlflow

        mlflow.set_tracking_uri(before["set_tracking_uri"])
        for name in MLFLOW:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in MLFLOW if before[name] is not None})
    assert after == before


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """A suite that a shell has put in the background ignores SIGINT, and so would all that it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_search_in_what_others_left():
    """The collector looks at this test's objects only: measuring runs it dozens of times; MLflow leaves a million."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """A migrated sqlite database without runs, made once for all workers: a new one costs two seconds, a copy none."""
    from qpipe.tracking import connect

    ours = tmp_path_factory.getbasetemp()
    folder = (ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours) / "template"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            connect(None, None, folder=folder)
            (folder / "made").touch()
    return folder / "mlflow.db"
