"""Advisory file locks that the kernel releases when their owner dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Hold `path` exclusively against every other process and thread; waits for its turn.

    The file is removed on release. Threads exclude each other too; a lock is not re-entrant.
    """
    descriptor = None
    while descriptor is None:
        descriptor = _acquire(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        _release(path, descriptor)


@contextmanager
def try_lock_file(path: Path) -> Iterator[bool]:
    """Hold `path` if nobody else does: yields whether it is held. The file stays if it is not."""
    try:
        descriptor = _acquire(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        descriptor = None
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            _release(path, descriptor)


@contextmanager
def share_lock_file(path: Path) -> Iterator[None]:
    """Hold `path` together with whoever else shares it, and against `try_lock_file`; waits for its turn."""
    descriptor = None
    while descriptor is None:
        descriptor = _acquire(path, fcntl.LOCK_SH)
    try:
        yield
    finally:
        os.close(descriptor)
        with try_lock_file(path):  # whoever shares it last removes it
            pass


@contextmanager
def keep_locked(path: Path) -> Iterator[int]:
    """Hold a new file, which stays: whoever can take it later knows that its holder has ended. Yields its inode."""
    descriptor = None
    while descriptor is None:
        descriptor = _acquire(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)


def _acquire(path: Path, how: int) -> int | None:
    """A locked descriptor, or None where the file was removed by its last owner while we waited for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    if _is_at(descriptor, path):
        return descriptor
    os.close(descriptor)
    return None


def _release(path: Path, descriptor: int) -> None:
    with suppress(PermissionError):  # another user's in a sticky folder: it stays, and is free
        path.unlink(missing_ok=True)
    os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # another user's, which a lock on a local disk may be taken of


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
