"""A lock in the store that a run holds as long as its process lives: what proves its end after a reboot, too."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from qpipe.store.locks import keep_locked, try_lock_file
from qpipe.tracking.owners import Owner, this_process

HOLD = "qpipe.hold"
"""Tag of a parent run: name and inode of the file that its process holds in its store."""
_TAG = re.compile(r"(?P<name>[0-9a-f]{32})/(?P<inode>\d+)")
_OLD_S = 90 * 86400.0
"""A file that nobody holds for so long belongs to a run that nobody looks for any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A file that this process holds."""

    tag: str
    path: Path

    def end(self) -> None:
        """Its run has ended in MLflow too: nobody has to prove anything."""
        self.path.unlink(missing_ok=True)


@contextmanager
def holding(folder: Path) -> Iterator[Hold]:
    """Hold a new file below `folder`, that of the store, until the end of the block or of the process."""
    _prune(folder / "running")
    name = uuid.uuid4().hex
    path = folder / "running" / f"{name}.lock"
    with keep_locked(path) as inode:
        yield Hold(tag=f"{name}/{inode}", path=path)


def was_let_go(tag: str, owner: Owner, folder: Path) -> bool:
    """Whether the process that held the file of `tag` in this store is known to have ended.

    The kernel lets go of a lock with its process. That proves the end where it is the kernel that held it, which the
    boot id says, or where the same host has booted again since. A copy of a store has files of other inodes, and a file
    that is not there proves nothing.
    """
    found, own = _TAG.fullmatch(tag), this_process()
    if found is None or owner.place is None or own.place is None:
        return False
    if owner.place[0] != own.place[0] and owner.host != own.host:
        return False
    path = folder / "running" / f"{found['name']}.lock"
    try:
        if path.stat().st_ino != int(found["inode"]):
            return False
        with try_lock_file(path) as free:
            return free
    except OSError:
        return False


def _prune(folder: Path) -> None:
    for path in folder.glob("*.lock"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _OLD_S:
                with try_lock_file(path):
                    pass
