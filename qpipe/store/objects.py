"""Immutable folders on this machine's disk, named by the digest of their manifest."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from qpipe.errors import StoreError
from qpipe.store import manifest as manifests
from qpipe.store.failures import as_store_error, full_disk_as_store_error
from qpipe.store.locks import lock_file
from qpipe.store.manifest import Manifest
from qpipe.store.scratch import clean, scratch

_DIGEST = re.compile(r"[0-9a-f]{64}")

Stamp = tuple[tuple[str, int, int, int, int], ...]
"""(name, inode, size, mtime, ctime) of every file of a verified folder."""


class Objects:
    """`objects/<digest>/` with `manifests/<digest>.json` beside; nothing is written before the first use."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: dict[str, Stamp] = {}
        self._cleaned = False

    def path(self, digest: str) -> Path:
        """Where an object lies.

        Raises:
            StoreError: that is no digest.
        """
        if not _DIGEST.fullmatch(digest):
            raise StoreError(f"{digest!r} is not a digest", hint="a digest has 64 hexadecimal characters")
        return self.root / "objects" / digest

    def add(self, fill: Callable[[Path], None]) -> str:
        """Let `fill` write into an empty folder and store that; an exception or a kill leaves nothing."""
        with self.scratch() as folder:
            with full_disk_as_store_error("write an object", self.root):
                fill(folder)
            with as_store_error("store an object", self.root):
                manifests.protect(folder)
                made = manifests.scan(folder)
                if not self.is_whole(made.digest):
                    self._install(folder, made)
        return made.digest

    def verify(self, digest: str) -> None:
        """Read every file again, unless nothing about them changed since this process last did.

        Raises:
            StoreError: a file is not what it was; the message names it with both digests.
        """
        folder = self.path(digest)
        stamp = _stamp(folder)
        if self._verified.get(digest) != stamp:
            check_same(self.manifest(digest), manifests.scan(folder), str(folder))
            self._verified[digest] = stamp

    def is_whole(self, digest: str) -> bool:
        """Whether the object is there, and every file of it is what it was."""
        if not self.path(digest).is_dir():
            return False
        try:
            self.verify(digest)
        except StoreError:
            return False
        return True

    def manifest(self, digest: str) -> Manifest:
        """The manifest of an object.

        Raises:
            StoreError: it is missing, or is not what it was.
        """
        path = self.root / manifest_name(digest)
        hint = f"delete {self.path(digest)}: it is made again when it is next needed"
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise StoreError(f"{path} is missing", hint=hint) from error
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise StoreError(f"{path} was changed: expected sha256 {digest}, found {found}", hint=hint)
        try:
            return manifests.parse(data.decode())
        except ValueError as error:
            raise StoreError(f"{path} is {error}", hint=f"a newer qpipe wrote it: use that one, or {hint}") from error

    def write(self, name: str, text: str) -> None:
        """Write a small file of the store as a whole or not at all."""
        with self.scratch() as folder, as_store_error(f"write {name}", self.root):
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = folder / "text"
            temporary.write_text(text, encoding="utf-8")
            temporary.rename(path)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty working folder on the store's disk, gone afterwards."""
        if not self._cleaned:
            self.clean()
        with ExitStack() as stack:
            with as_store_error("make a working folder", self.root):
                folder = stack.enter_context(scratch(self.root / "tmp"))
            yield folder

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a name against all processes and threads on this host; the kernel releases it on death."""
        with ExitStack() as stack:
            with as_store_error(f"lock {name}", self.root):
                stack.enter_context(lock_file(self.root / "locks" / f"{name}.lock"))
            yield

    def clean(self) -> None:
        """Remove what killed processes left behind; done by itself at the first write."""
        with as_store_error("clean up", self.root):
            clean(self.root / "tmp")
            clean(self.root / "locks")
        self._cleaned = True

    def remove(self, digest: str) -> None:
        """Take an object out of the store; a kill leaves either all of it or a folder that the next run removes."""
        with self.scratch() as folder:
            self.path(digest).rename(folder / "object")
            (self.root / manifest_name(digest)).unlink(missing_ok=True)
        self._verified.pop(digest, None)

    def _install(self, folder: Path, made: Manifest) -> None:
        target = self.path(made.digest)
        self.write(manifest_name(made.digest), made.text)
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.lock(made.digest), scratch(self.root / "tmp") as broken:
            if self.is_whole(made.digest):
                return
            if target.exists():  # changed by somebody: what we hold is right
                target.rename(broken / "object")
            folder.rename(target)
        self._verified[made.digest] = _stamp(target)


def manifest_name(digest: str) -> str:
    """Where the manifest of an object lies, relative to the store."""
    return f"manifests/{digest}.json"


def check_same(wanted: Manifest, found: Manifest, where: str) -> None:
    """Compare what is there with what should be.

    Raises:
        StoreError: naming the first file that differs, with both digests.
    """
    if found == wanted:
        return
    want = {entry.name: entry.sha256 for entry in wanted.entries}
    have = {entry.name: entry.sha256 for entry in found.entries}
    name = next(name for name in sorted(want.keys() | have.keys()) if want.get(name) != have.get(name))
    raise StoreError(
        f"{name} in {where} was changed: expected sha256 {want.get(name, '(no such file)')},"
        f" found {have.get(name, '(no such file)')}",
        hint=f"delete {where}: it is made again when it is next needed",
    )


def copy_files(source: Path, target: Path) -> None:
    """Copy every file below `source`, with its executable bit."""
    for name in manifests.list_files(source):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, target / name)


def _stamp(folder: Path) -> Stamp:
    rows = []
    for name in manifests.list_files(folder):
        stat = (folder / name).stat()
        rows.append((name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return tuple(rows)
