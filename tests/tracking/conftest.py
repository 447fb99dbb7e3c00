import contextlib
import os
import shutil
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from measured_examples import evaluation, evidence, profile, verdict

import qpipe
from qpipe.engines import write_engine
from qpipe.execute.children.group import members, state
from qpipe.records.engine import Built, Placement
from qpipe.records.result import CellResult
from qpipe.records.tensors import Signature, TensorSpec
from qpipe.records.verdict import Decision
from qpipe.tracking.connection import connect

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# MLflow 3.17: with SQLAlchemy 2.1, and while it imports itself; nothing of ours calls these.
MLFLOW_NOISE = (
    "ignore:The ``noload`` loader strategy is deprecated",
    "ignore:.*Any type hint is inferred as AnyType",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for line in MLFLOW_NOISE:
                item.add_marker(pytest.mark.filterwarnings(line))


SIGNATURE = Signature(
    inputs=(TensorSpec(name="image", dtype="float32", shape=("N", 4)),),
    outputs=(TensorSpec(name="logits", dtype="float32", shape=("N", 3)),),
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)


def make_engine(
    folder: Path, *, content: bytes = b"weights", recipe: str = "int8", kind: str = "measured", requires=()
):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    return write_engine(
        folder,
        Built(files=(Path("model.onnx"),), placement=Placement(integer=3, float=1, elsewhere=0), requires=requires),
        model="digits",
        model_digest="ab" * 32,
        recipe=recipe,
        target="cpu-local",
        backend="stand-in",
        signature=SIGNATURE,
        kind=kind,
    )


def make_evidence_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evidence.json").write_text("{}")
    np.savez(folder / "evaluation.npz", units=np.ones((10, 1)))
    return folder


def make_result(
    engine,
    *,
    key: str = "11" * 32,
    accuracy: float = 0.97,
    decision: Decision | None = Decision.PASS,
    evidence_digest: str = "22" * 32,
    kind: str = "measured",
) -> CellResult:
    found = evidence(
        digest=evidence_digest,
        model_digest=engine.model_digest,
        engine_digest=engine.digest,
        evaluation=evaluation(accuracy, kind=kind),
        reference=evaluation(0.975),
        profile=profile(1),
        engine_size_bytes=engine.size_bytes,
        baseline_size_bytes=4 * engine.size_bytes,
        placement=engine.placement,
    )
    return CellResult(
        key=key,
        model="digits",
        recipe=engine.recipe,
        target="cpu-local",
        status="ok",
        engine=engine,
        evidence=found,
        verdicts=(verdict(decision=decision),) if decision else (),
        decision=decision,
        seconds=1.5,
    )


@pytest.fixture
def make():
    """The makers of examples; test modules cannot import one another."""
    return SimpleNamespace(
        engine=make_engine,
        evidence_folder=make_evidence_folder,
        result=make_result,
        environment=environment,
        free_port=free_port,
        stop=stop,
        wait_for=wait_for,
    )


@pytest.fixture
def engine(tmp_path):
    return make_engine(tmp_path / "engine")


@pytest.fixture
def result(engine):
    return make_result(engine)


@pytest.fixture(scope="session")
def database(empty_database, tmp_path_factory) -> str:
    """One sqlite database for the session."""
    folder = tmp_path_factory.mktemp("mlflow")
    shutil.copy(empty_database, folder)
    return connect(None, "first", folder=folder).uri


@pytest.fixture
def tracker(database, request, tmp_path):
    """A tracker in an experiment of its own."""
    return connect(database, f"{request.node.name}-{tmp_path.name}", folder=tmp_path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, alive: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert alive(), "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(url)


def environment(**more: str) -> dict[str, str]:
    """As a shell would have it, with our interpreter's folder first on PATH: mlflow calls `python` and `uvicorn`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    source = str(Path(qpipe.__file__).parents[1])  # children find the qpipe under test, installed or not
    return {**os.environ, "PATH": path, "PYTHONPATH": source, **more}


def stop(group: int) -> None:
    """End a server that stands in a session of its own, with its workers; some other process may be its parent."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not {state(pid) for pid in members(group)} <= {"Z", ""}:
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)


@pytest.fixture(scope="session")
def server(empty_database, shared_by_workers):
    """A real `mlflow server` on a free loopback port, one for all workers: each start costs twelve CPU seconds."""

    def start(folder: Path) -> None:
        shutil.copy(empty_database, folder / "server.db")
        port = free_port()
        command = [
            *("env", "-C", str(folder), sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/server.db"),
            *("--artifacts-destination", str(folder / "artifacts")),
        ]
        quiet = environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
        log = (os.POSIX_SPAWN_OPEN, 1, str(folder / "server.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        said = [log, (os.POSIX_SPAWN_DUP2, 1, 2)]
        # Not Popen: the worker that started it may be done with it long before it ends.
        pid = os.posix_spawn("/usr/bin/env", command, quiet, file_actions=said, setsid=True)
        (folder / "pid").write_text(str(pid))
        (folder / "url").write_text(f"http://127.0.0.1:{port}")
        wait_for(f"http://127.0.0.1:{port}/health", lambda: os.waitpid(pid, os.WNOHANG) == (0, 0), 150)

    def end(folder: Path) -> None:
        stop(int((folder / "pid").read_text()))

    with shared_by_workers("server", start, end) as folder:
        yield (folder / "url").read_text()
