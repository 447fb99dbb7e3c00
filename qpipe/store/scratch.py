"""Working folders inside the store: each is held by a lock, and removed when its owner is gone."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qpipe.store.locks import lock_file, try_lock_file


@contextmanager
def scratch(home: Path) -> Iterator[Path]:
    """An empty folder under `home`, removed at the end unless it was renamed away."""
    name = uuid.uuid4().hex
    with lock_file(home / f"{name}.lock"):
        folder = home / name
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def clean(home: Path) -> None:
    """Remove what killed processes left: locks that nobody holds, and the folders of that name.

    What belongs to another user is left to that user's next run: one who may remove the lock may not remove the folder.
    """
    for lock in home.glob("*.lock"):
        if not _is_own(lock):
            continue
        with try_lock_file(lock) as ours:
            if ours:
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)


def _is_own(lock: Path) -> bool:
    try:
        return os.geteuid() in {0, lock.stat().st_uid}
    except FileNotFoundError:  # released meanwhile
        return False
