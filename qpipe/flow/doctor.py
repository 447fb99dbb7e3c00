"""What `qpipe doctor` looks at: versions, plugins, targets, the store, MLflow."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from qpipe.errors import QpipeError
from qpipe.flow.workplace import open_registry, open_store
from qpipe.plugins.answers import ask_availability
from qpipe.plugins.packages import package_version
from qpipe.records.engine import Unavailable
from qpipe.version import __version__

if TYPE_CHECKING:
    from qpipe.plugins.registry import Registry
    from qpipe.records.target import Target

FEW = 3
"""Parts of a plugin that are named even in brief."""
PACKAGES = ("onnxruntime", "onnx", "onnx-ir", "mlflow", "numpy", "scipy", "pydantic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the doctor."""

    state: Literal["ok", "note", "broken"]
    what: str
    found: str
    hint: str = ""
    kind: Literal["", "package", "plugin", "target"] = ""
    brief: str = ""
    """What is enough to know where nothing is wrong."""


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


def abridged(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """As few lines as say the same to a reader: packages in one, targets of the same state in one, parts counted."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for one in findings:
        alike = {"package": ("package",), "target": ("target", one.found, one.hint)}.get(one.kind)
        groups.setdefault(alike if alike and one.state != "broken" else (one.what, one.found), []).append(one)
    return tuple(_as_one(group) for group in groups.values())


def _as_one(group: list[Finding]) -> Finding:
    first = group[0]
    if first.kind == "package" and first.state == "ok":
        return replace(first, what="packages", found=", ".join(f"{one.what} {one.brief}" for one in group))
    if first.kind == "target" and len(group) > 1:
        names = ", ".join(one.brief for one in group)
        return replace(first, what=f"{len(group)} targets", found=f"{first.found}: {names}")
    return replace(first, found=first.brief) if first.kind == "plugin" and first.state == "ok" else first


def _versions() -> Iterator[Finding]:
    yield Finding(state="ok", what="qpipe", found=f"{__version__} on Python {platform.python_version()}")
    for name in PACKAGES:
        number = package_version(name)
        missing = number == "absent"
        hint = f"pip install {name}" if missing else ""
        state: Literal["ok", "broken"] = "broken" if missing else "ok"
        yield Finding(state=state, what=name, found=number, hint=hint, kind="package", brief=number)


def _plugins(registry: Registry) -> Iterator[Finding]:
    for plugin in registry.plugins:
        brings = registry.brings(plugin)
        said, brief = (
            f"{plugin.version}: {parts or 'nothing'}".removeprefix(": ")
            for parts in (", ".join(brings), _counted(brings))
        )
        yield Finding(state="ok", what=f"plugin {plugin.name}", found=said, kind="plugin", brief=brief)
    for problem in registry.problems:
        yield Finding(state="broken", what=f"plugin {problem.name}", found=problem.reason, hint=problem.hint)


def _counted(brings: tuple[str, ...]) -> str:
    """The names where they are few, e.g. `backend litert`; else how many of a kind: `10 stages, 15 gates`."""
    if len(brings) <= FEW:
        return ", ".join(brings)
    counts = Counter(part.split(" ")[0] for part in brings)
    return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items())


def _targets(registry: Registry) -> Iterator[Finding]:
    for _, target in sorted(registry.targets.items()):
        yield look_at(target, registry)


def look_at(target: Target, registry: Registry) -> Finding:
    """Whether engines of one target can be built and run here, and what the first time brings with it."""
    found_of = partial(Finding, what=f"target {target.name}", kind="target", brief=target.name)
    try:
        found = ask_availability(registry.backend(target.backend), target)
    except QpipeError as error:
        return found_of(state="note", found=error.message, hint=error.hint)
    notes = []
    for state in (found.build, found.run):
        if isinstance(state, Unavailable):
            return found_of(state="note", found=state.reason, hint=state.hint)
        if state.note:
            notes.append(state.note)
    return found_of(state="note" if notes else "ok", found="; ".join(("can be built and run here", *notes)))


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
        tracker.check_server()
    except QpipeError as error:
        yield Finding(state="broken", what="MLflow", found=error.message, hint=error.hint)
        return
    yield Finding(state="ok", what="MLflow", found=tracker.address)
