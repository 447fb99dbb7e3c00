"""What a file of the user's holds: named by its bytes, which are read once while its size and time stay."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from qpipe.records.data import Seal
from qpipe.store.manifest import file_sha256


def seal(path: Path, known: Seal | None = None) -> Seal:
    """Size, modification time and SHA-256 of a file; a `known` seal of the same size and time is believed.

    Bytes are read once per process and (path, size, time).

    Raises:
        OSError: the file cannot be read.
    """
    stat = path.stat()
    if known is not None and (known.size_bytes, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return known
    sha256 = _sha256(path.resolve(), stat.st_size, stat.st_mtime_ns)
    return Seal(size_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=sha256)


@lru_cache(maxsize=4096)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001  (size and mtime name the content)
    return file_sha256(path)
