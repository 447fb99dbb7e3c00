"""Converted files by the digest of what they were converted from: the targets of a pipeline share one conversion.

A file from here is loaded, run and compared like any other: nothing is trusted because it was kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from qpipe.home import home
from qpipe_litert.tools import ONNX2TF

LIMIT_BYTES = 2**30
"""All kept files together; the ones that were used longest ago go first."""


def converted_once(graph: bytes, keep: tuple[str, ...], make: Callable[[], bytes]) -> bytes:
    """The `.tflite` of a graph: made now, or kept from an earlier call with the same bytes and options.

    Two processes do not make the same file at once. Where the folder cannot be written, it is made each time.
    """
    key = hashlib.sha256(b"\0".join((ONNX2TF.encode(), *(name.encode() for name in keep), graph))).hexdigest()
    path = folder() / f"{key}.tflite"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return make()
    with _held(lock):
        if path.is_file():
            os.utime(path)
            return path.read_bytes()
        made = make()
        _write(path, made)
    _prune(path.parent)
    return made


def folder() -> Path:
    """Where converted files are kept."""
    return home() / "converted"


@contextmanager
def _held(lock: int) -> Iterator[None]:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _write(path: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    Path(file.name).replace(path)


def _prune(kept: Path) -> None:
    found = []
    for path in kept.glob("*.tflite"):
        try:
            state = path.stat()
        except FileNotFoundError:  # another process prunes too
            continue
        found.append((state.st_mtime_ns, state.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= LIMIT_BYTES:
            return
        path.unlink(missing_ok=True)
        path.with_suffix(".lock").unlink(missing_ok=True)
        total -= size
