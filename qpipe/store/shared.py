"""Large files that several objects have in common lie on the disk once: hard links to one inode.

`files/<sha256>` is one more name of each, to be found by. An object stays whole and is verified by itself; where the
disk has no hard links (FAT, some network shares, files of another user), it has a copy of its own.
"""

from __future__ import annotations

import filecmp
import os
from contextlib import suppress
from pathlib import Path

from qpipe.store.manifest import Manifest

LARGE_BYTES = 2**20
"""Smaller files are not worth a name of their own."""


def share_files(folder: Path, made: Manifest, pool: Path) -> None:
    """Replace the large files of a new object, still in its working folder, by those that are there already."""
    for entry in made.entries:
        if entry.size_bytes >= LARGE_BYTES:
            try:
                pool.mkdir(exist_ok=True)
                _share(folder / entry.name, pool / entry.sha256)
            except OSError:
                return  # then every object keeps its own copy, which is as true


def forget_unused(pool: Path) -> None:
    """Remove the names of files that no object has any more, and so the files; those of other users stay theirs."""
    for file in pool.glob("*"):
        with suppress(FileNotFoundError, PermissionError):
            if file.stat().st_nlink == 1:
                file.unlink()


def _share(file: Path, known: Path) -> None:
    try:
        os.link(file, known)
    except FileExistsError:
        right, wrong = (known, file) if _alike(file, known) else (file, known)  # somebody changed what is known
        spare = file.with_name(f"{file.name}.same")
        try:
            os.link(right, spare)
            spare.rename(wrong)
        finally:
            spare.unlink(missing_ok=True)


def _alike(file: Path, known: Path) -> bool:
    """Same bytes, and the same mode, since that is the inode's."""
    return file.stat().st_mode == known.stat().st_mode and filecmp.cmp(file, known, shallow=False)
