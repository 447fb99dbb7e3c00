"""For all tests: what one of them does to the process is not seen by the next."""

import fcntl
import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("loaded", deadline=None)  # how long an example takes tells of the machine, not of our code
settings.load_profile("loaded")
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
def signals_are_heard() -> None:
    """A shell ignores SIGINT in the background, `nohup` SIGHUP, and all that is started would inherit it."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True)
def no_search_in_what_others_left():
    """The collector looks at this test's objects only: measuring runs it dozens of times; MLflow leaves a million."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory) -> Path:
    """A folder that all workers of one session share."""
    ours = tmp_path_factory.getbasetemp()
    return ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """One worker at a time."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def shared_by_workers(of_all_workers):
    """A folder with what the first worker starts, all use, and the last one stops."""

    @contextmanager
    def shared(name, start, stop):
        folder = of_all_workers / name
        users = folder / "users"
        with alone_in(folder):
            if not users.exists():
                start(folder)
            users.write_text(f"{users.read_text() if users.exists() else ''}x")
        try:
            yield folder
        finally:
            with alone_in(folder):
                users.write_text(users.read_text()[1:])
                if not users.read_text():
                    users.unlink()
                    stop(folder)

    return shared


@pytest.fixture(scope="session")
def empty_database(of_all_workers) -> Path:
    """A migrated sqlite database without runs, made once for all workers: a new one costs two seconds, a copy none."""
    from qpipe.tracking import connect

    folder = of_all_workers / "template"
    with alone_in(folder):
        if not (folder / "made").exists():
            connect(None, None, folder=folder)
            (folder / "made").touch()
    return folder / "mlflow.db"
