"""Whole runs: the real command line in this process, real children, real onnxruntime, real MLflow on sqlite."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import qpipe
from qpipe.cli.guarded import run_app
from qpipe.execute.children import guard
from qpipe.execute.children.nursery import MODULES, Nursery
from qpipe.execute.work import profiling
from qpipe.testing.fake import fake_site
from qpipe.testing.models import small_rows, write_small_model

ROOT = Path(qpipe.__file__).parents[1]
MLFLOW_NOISE = (
    "ignore:The ``noload`` loader strategy is deprecated",
    "ignore:.*Any type hint is inferred as AnyType",
)
"""MLflow 3.17: with SQLAlchemy 2.1, and while it imports itself; nothing of ours calls these."""
SHORT = {"processes": 2, "rounds": 8, "blocks": 2, "min_seconds": 0.0, "warmup": 1, "memory_processes": 1}
"""A measuring protocol of well under a second per engine."""
VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_REGISTRY_URI", "QPIPE_STORE")

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for line in MLFLOW_NOISE:
                item.add_marker(pytest.mark.filterwarnings(line))


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """The one object on stdout."""
        return json.loads(self.out)

    def cell(self, label: str) -> dict:
        """A cell by `recipe/target`."""
        return next(one for one in self.json["cells"] if f"{one['recipe']}/{one['target']}" == label)


@contextmanager
def as_at_a_shell(lock: Path):
    """No variable of the caller's, a measuring lock of our own, and signals as they were."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        patch.setattr(profiling, "measuring", functools.partial(profiling.measuring, path=lock))
        yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True)
def clean_environment(tmp_path):
    with as_at_a_shell(tmp_path / "measure.lock"):
        yield


@pytest.fixture(scope="session")
def seed() -> Iterator[Nursery]:
    """One interpreter that the children of all these tests are forked from, with all in it that they import."""
    nursery = Nursery(
        (*MODULES, "onnxruntime", "pydantic.type_adapter", "qpipe.builtins", "qpipe.execute.work.profiling")
    )
    with nursery.opened():
        yield nursery


@pytest.fixture(autouse=True)
def one_seed(seed, monkeypatch) -> None:
    """No seed for each run, and no fresh interpreters to measure: their imports took half of the time.

    `first_run` and each `qpipe` process of its own have them as always.
    """
    monkeypatch.setattr(Nursery, "opened", lambda _: nullcontext())
    monkeypatch.setattr(guard, "spawn", seed.fork)


@pytest.fixture
def qpipe_in(capfd, monkeypatch) -> Callable[..., Said]:
    """`qpipe ARGS…` in a folder, in this process: MLflow is imported once for all tests."""

    def call(folder: Path, *args: object) -> Said:
        monkeypatch.chdir(folder)
        capfd.readouterr()
        code = run_app([str(arg) for arg in args])
        captured = capfd.readouterr()
        return Said(code=code, out=captured.out, err=captured.err)

    return call


@pytest.fixture
def fake(monkeypatch):
    """The fake backend as an installed plugin, here and in children."""
    monkeypatch.syspath_prepend(str(fake_site()))


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """A folder with the small network and its rows: labels are its own answers, so that it is always right."""
    import onnxruntime

    folder = tmp_path_factory.mktemp("small")
    write_small_model(folder)
    session = onnxruntime.InferenceSession(str(folder / "small.onnx"), providers=["CPUExecutionProvider"])
    for number, (role, count) in enumerate({"calibration": 64, "search": 50, "gate": 400}.items()):
        rows = small_rows(count, 10 + number)
        (logits,) = session.run(None, {"image": rows})
        label = np.asarray(logits).argmax(1).astype(np.int64)
        np.savez(folder / f"{role}.npz", image=rows, label=label, source=np.array(["a", "b"] * count)[:count])
    return folder


@pytest.fixture
def place(tmp_path, small, empty_database) -> Path:
    """A working folder with model, rows and a database of its own."""
    folder = tmp_path / "place"
    folder.mkdir()
    for path in small.iterdir():
        shutil.copy(path, folder)
    shutil.copy(empty_database, folder / "mlflow.db")
    return folder


def small_pipeline(**changes: object) -> dict[str, object]:
    """The pipeline of the small network as a mapping; a change of None leaves the key out."""
    document: dict[str, object] = {
        "name": "small",
        "model": {"path": "small.onnx"},
        "task": "classification",
        "data": {
            "label": "label",
            "calibration": {"npz": "calibration.npz"},
            "search": {"npz": "search.npz"},
            "gate": {"npz": "gate.npz"},
        },
        "targets": ["cpu-local"],
        "recipes": ["int8"],
        "gates": {"quality": {"margin": 0.05}, "finite": {}},
        "promote": {"model": "{model}-{target}", "alias": "champion"},
        "tracking": {"experiment": "small"},
        "profile": SHORT,
    }
    return {key: value for key, value in {**document, **changes}.items() if value is not None}


def write_pipeline(folder: Path, name: str = "small.yaml", **changes: object) -> Path:
    """A pipeline file in a folder."""
    path = folder / name
    path.write_text(yaml.safe_dump(small_pipeline(**changes), sort_keys=False))
    return path


def write_target(folder: Path, name: str, limits: Mapping[str, object] | None = None, **options: object) -> str:
    """A target file of the fake backend beside the pipeline; its options are what it is told to do."""
    (folder / "targets").mkdir(exist_ok=True)
    document = {"name": name, "backend": "fake", "options": options, **({"limits": limits} if limits else {})}
    (folder / "targets" / f"{name}.yaml").write_text(yaml.safe_dump(document))
    return name


def start(folder: Path, *args: object, **variables: str) -> subprocess.Popen[str]:
    """A real `qpipe` process in a session of its own."""
    path = os.pathsep.join([str(fake_site()), str(ROOT)])
    clean = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return subprocess.Popen(
        [sys.executable, "-m", "qpipe", *map(str, args)],
        cwd=folder,
        env={**clean, "PYTHONPATH": path, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def make():
    """Makers that tests call: test modules cannot import one another."""
    return SimpleNamespace(pipeline=write_pipeline, target=write_target, start=start, at_a_shell=as_at_a_shell)


@pytest.fixture(scope="session")
def digits(tmp_path_factory, empty_database) -> Path:
    """The bundled digits in a folder, with a short profile and a database."""
    folder = tmp_path_factory.mktemp("digits")
    for path in (ROOT / "pipelines" / "digits").iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    shutil.copy(empty_database, folder / "mlflow.db")
    document = yaml.safe_load((folder / "digits.yaml").read_text())
    (folder / "digits.yaml").write_text(yaml.safe_dump({**document, "profile": SHORT}, sort_keys=False))
    return folder


@pytest.fixture(scope="session")
def first_run(digits, tmp_path_factory) -> tuple[Path, dict]:
    """The digits after their first run, and what it said. Nobody writes into that folder."""
    lock = tmp_path_factory.mktemp("lock") / "measure.lock"
    with as_at_a_shell(lock), pytest.MonkeyPatch.context() as patch:
        patch.chdir(digits)
        from qpipe.api import run
        from qpipe.report.document import run_document

        return digits, run_document(run("digits.yaml"))
