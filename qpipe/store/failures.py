"""What the operating system says about the store's disk, as one clear line."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qpipe.allowance import EXHAUSTED
from qpipe.errors import StoreError

_HINTS = {
    **EXHAUSTED,
    errno.ENOSPC: "free some space there, or put the store on another disk",
    errno.EDQUOT: "your disk quota is used up: free some space there, or put the store on another disk",
    errno.EFBIG: "a file is larger than this file system or `ulimit -f` allows",
    errno.EACCES: "make the folder writable, or put the store in a folder of yours",
    errno.EPERM: "make the folder writable, or put the store in a folder of yours",
    errno.EROFS: "the file system is read-only: put the store in a folder that can be written",
    errno.ENOTDIR: "a file stands where the store wants a folder: move it away",
    errno.EEXIST: "a file stands where the store wants a folder: move it away",
}


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SHORT = re.compile(r"\d+ requested and \d+ written")


def store_error(error: OSError, doing: str, root: Path) -> StoreError:
    """The store's error for what the system said while `doing` something under `root`."""
    place = error.filename2 or error.filename  # of a copy, what was to be written
    where = f" ({place})" if place else ""
    hint = _HINTS.get(error.errno or (errno.ENOSPC if _is_full(error) else 0), "look at the disk that holds the store")
    return StoreError(f"cannot {doing} in the store {root}: {error.strerror or error}{where}", hint=hint)


@contextmanager
def as_store_error(doing: str, root: Path) -> Iterator[None]:
    """Turn every `OSError` of the block into a `StoreError` with a hint.

    Raises:
        StoreError: the block met an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise store_error(error, doing, root) from error


@contextmanager
def full_disk_as_store_error(doing: str, root: Path) -> Iterator[None]:
    """Turn only a full disk into a `StoreError`: other troubles of the block are its own.

    Raises:
        StoreError: the disk, or the quota on it, is used up.
    """
    try:
        yield
    except OSError as error:
        if _is_full(error):
            raise store_error(error, doing, root) from error
        raise


def _is_full(error: OSError) -> bool:
    """Of numpy there is no number where it could write the beginning of an array only."""
    return error.errno in _FULL or (error.errno is None and _SHORT.search(str(error)) is not None)
