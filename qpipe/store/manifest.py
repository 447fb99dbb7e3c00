"""The manifest of a folder: names, sizes and SHA-256 of its files. Its own digest names the folder."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qpipe.errors import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file, by its name relative to the folder (with `/`)."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All files of a folder, sorted by name. Times, modes and empty folders are no part of it."""

    entries: tuple[Entry, ...]

    @property
    def text(self) -> str:
        """Canonical JSON: a list of [name, size, sha256]."""
        rows = [[entry.name, entry.size_bytes, entry.sha256] for entry in self.entries]
        return json.dumps(rows, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """SHA-256 of `text`."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(entry.size_bytes for entry in self.entries)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal characters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(folder: Path) -> tuple[str, ...]:
    """Relative names of all files below a folder, sorted.

    Raises:
        StoreError: something there is neither a file nor a folder (a link, a socket).
    """
    return tuple(sorted(_walk(folder, "")))


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), name + "/")
            elif entry.is_file(follow_symlinks=False):
                yield name
            else:
                what = "a link" if entry.is_symlink() else "not a plain file"
                raise StoreError(f"{entry.path} is {what}", hint="only plain files can be stored: copy its content")


def scan(folder: Path) -> Manifest:
    """Read every file below `folder`.

    Raises:
        StoreError: something there is neither a file nor a folder.
        OSError: a file cannot be read.
    """
    return Manifest(entries=tuple(_entry(folder, name) for name in list_files(folder)))


def _entry(folder: Path, name: str) -> Entry:
    path = folder / name
    return Entry(name=name, size_bytes=path.stat().st_size, sha256=file_sha256(path))


def parse(text: str) -> Manifest:
    """The manifest from its canonical JSON.

    Raises:
        ValueError: the text is no manifest.
    """
    try:
        entries = tuple(Entry(name=n, size_bytes=s, sha256=d) for n, s, d in json.loads(text))
    except (TypeError, ValueError) as error:
        raise ValueError(f"not a manifest: {error}") from error
    for entry in entries:  # a manifest may come over the network
        if entry.name.startswith("/") or ".." in entry.name.split("/"):
            raise ValueError(f"not a manifest: {entry.name!r} lies outside its folder")
    return Manifest(entries=entries)


def protect(folder: Path) -> None:
    """Make every file below a folder read-only; folders stay writable so that it can be removed."""
    for name in list_files(folder):
        path = folder / name
        path.chmod(0o444 | (stat.S_IMODE(path.stat().st_mode) & 0o111))
