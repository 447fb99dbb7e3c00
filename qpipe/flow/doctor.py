"""What `qpipe doctor` looks at: versions, plugins, targets, the store, MLflow."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qpipe.errors import QpipeError
from qpipe.flow.workplace import open_registry, open_store
from qpipe.plugins.packages import package_version
from qpipe.records.engine import Unavailable
from qpipe.version import __version__

if TYPE_CHECKING:
    from qpipe.plugins.registry import Registry
    from qpipe.records.target import Target

PACKAGES = ("onnxruntime", "onnx", "onnx-ir", "mlflow", "numpy", "scipy", "pydantic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor."""

    state: Literal["ok", "note", "broken"]
    what: str
    found: str
    hint: str = ""


def diagnose(*, store: str | None, tracking_uri: str | None) -> tuple[Finding, ...]:
    """Everything that a run would stumble over, before a run."""
    registry = open_registry()
    return (
        *_versions(),
        *_plugins(registry),
        *_targets(registry),
        _store(store),
        *_mlflow(tracking_uri),
    )


def _versions() -> Iterator[Finding]:
    yield Finding(state="ok", what="qpipe", found=f"{__version__} on Python {platform.python_version()}")
    for name in PACKAGES:
        number = package_version(name)
        missing = number == "absent"
        hint = f"pip install {name}" if missing else ""
        yield Finding(state="broken" if missing else "ok", what=name, found=number, hint=hint)


def _plugins(registry: Registry) -> Iterator[Finding]:
    for plugin in registry.plugins:
        brings = ", ".join(registry.brings(plugin)) or "nothing"
        yield Finding(state="ok", what=f"plugin {plugin.name}", found=f"{plugin.version}: {brings}".removeprefix(": "))
    for problem in registry.problems:
        yield Finding(state="broken", what=f"plugin {problem.name}", found=problem.reason, hint=problem.hint)


def _targets(registry: Registry) -> Iterator[Finding]:
    for _, target in sorted(registry.targets.items()):
        yield look_at(target, registry)


def look_at(target: Target, registry: Registry) -> Finding:
    """Whether engines of one target can be built and run here, and what the first time brings with it."""
    what = f"target {target.name}"
    try:
        found = registry.backend(target.backend).check(target)
    except QpipeError as error:
        return Finding(state="note", what=what, found=error.message, hint=error.hint)
    notes = []
    for state in (found.build, found.run):
        if isinstance(state, Unavailable):
            return Finding(state="note", what=what, found=state.reason, hint=state.hint)
        if state.note:
            notes.append(state.note)
    return Finding(state="note" if notes else "ok", what=what, found="; ".join(("can be built and run here", *notes)))


def _store(root: str | None) -> Finding:
    store = open_store(root)
    try:
        store.check_writable()
    except QpipeError as error:
        return Finding(state="broken", what="store", found=error.message, hint=error.hint)
    return Finding(state="ok", what="store", found=f"{store.location}, {store.size() / 1e6:.1f} MB")


def _mlflow(uri: str | None) -> Iterator[Finding]:
    from qpipe.tracking import connect, resolve_uri, stray_mlruns
    from qpipe.tracking.connection import sqlite_file

    stray = stray_mlruns(Path.cwd())
    if stray is not None:
        hint = "move it away: MLflow itself would take it for the store instead of sqlite"
        yield Finding(state="note", what="mlruns", found=f"a stray {stray}", hint=hint)
    resolved = resolve_uri(uri, folder=Path.cwd())
    database = sqlite_file(resolved)
    if database is not None and not database.exists():  # looking makes nothing
        yield Finding(state="ok", what="MLflow", found=f"{resolved}, which the first run makes")
        return
    try:
        tracker = connect(uri, None, folder=Path.cwd())
    except QpipeError as error:
        yield Finding(state="broken", what="MLflow", found=error.message, hint=error.hint)
        return
    yield Finding(state="ok", what="MLflow", found=tracker.address)
