"""What builders learn from build to build (measured kernels), kept in the store under the backend's own key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from qpipe.errors import StoreError
from qpipe.plugins.answers import as_record
from qpipe.plugins.backend import Learning
from qpipe.records.engine import Built

if TYPE_CHECKING:
    from qpipe.execute.work.bench import Bench
    from qpipe.records.engine import Prepared
    from qpipe.store import Store

SPACE = "learnt"


def build(bench: Bench, prepared: Prepared, workdir: Path) -> Built:
    """Build with the cell's backend; one that learns gets what earlier builds left, and leaves more.

    A build that fails teaches nothing. Builds at the same time each add to what they began with: the last one stays.
    """
    built = _build(bench, prepared, workdir)
    return as_record(built, Built, f"backend {bench.backend.name}: build")


def _build(bench: Bench, prepared: Prepared, workdir: Path) -> object:
    target, backend = bench.cell.target, bench.backend
    key = backend.learnt_key(target) if isinstance(backend, Learning) else ""
    if not isinstance(backend, Learning) or not key:
        return backend.build(prepared, target, workdir, bench.progress)
    with TemporaryDirectory() as scratch:
        learnt = Path(scratch)
        recall(bench.store, key, learnt)
        built = backend.build_with(prepared, target, workdir, bench.progress, learnt)
        keep(bench.store, key, learnt)
    return built


def recall(store: Store, key: str, folder: Path) -> None:
    """Copy what the key names into an empty folder; what is gone or broken in the store is learnt again."""
    text = store.recall(SPACE, key)
    if text is None:
        return
    try:
        found = store.folder(str(json.loads(text)["object"]))
    except (StoreError, ValueError, TypeError, KeyError):
        return
    for file in found.iterdir():
        shutil.copyfile(file, folder / file.name)


def keep(store: Store, key: str, folder: Path) -> None:
    """Let the key name the folder's files from now on; an empty folder teaches nothing."""
    if any(folder.iterdir()):
        store.remember(SPACE, key, json.dumps({"object": store.put_folder(folder)}))
