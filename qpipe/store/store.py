"""The store: objects by digest, and `keys/<space>/<key>.json` that say what a key names."""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from qpipe.errors import ConfigError, StoreError
from qpipe.home import home
from qpipe.store import manifest as manifests
from qpipe.store.failures import as_store_error, store_error
from qpipe.store.locks import share_lock_file, try_lock_file
from qpipe.store.objects import Objects, check_same, copy_files, manifest_name
from qpipe.store.remote import Remote
from qpipe.store.scratch import scratch
from qpipe.store.spare import Spare, find_spare, folder_bytes

AT_WORK = "at-work.lock"
_NAME = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_.@+-]{0,199}")


class Store:
    """Content-addressed folders and keys. Nothing is written before the first write; every write is atomic.

    `root` is a folder, or a URL that fsspec knows. Objects of a remote store are fetched into `cache` (by default
    a folder below the user's cache folder) and verified there; its locks hold on this host only.
    """

    def __init__(self, root: str | Path, *, cache: Path | None = None) -> None:
        self.url = str(root) if "://" in str(root) else ""
        parts = urlsplit(self.url)
        self._remote = Remote(self.url) if self.url and parts.scheme != "file" else None
        if self._remote is not None:
            self.root = (cache or _cache_folder(self.url)).absolute()
        else:
            self.root = Path(unquote(parts.path) if self.url else root).absolute()
        self._objects = Objects(self.root)

    @property
    def location(self) -> str:
        """The root as another process would be given it."""
        return self.url or str(self.root)

    def check_writable(self) -> None:
        """Find out before work starts whether the store's folder can be written; one that is not there is not made.

        Raises:
            ConfigError: it cannot; the message says where and why.
            StoreError: this process may open no more files, or gets no more memory.
        """
        if self.root.is_symlink() and not self.root.exists():
            raise ConfigError(
                f"the store {self.root} is a link to {self.root.readlink()}, which is not there",
                hint="mount that disk, make that folder, or remove the link",
            )
        there = next(path for path in (self.root, *self.root.parents) if path.exists() or path.is_symlink())
        try:
            with scratch(self.root / "tmp") if there == self.root else TemporaryDirectory(dir=there) as folder:
                (Path(folder) / "probe").write_bytes(b"qpipe")
        except OSError as error:
            found = store_error(error, "write", self.root)
            if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
                raise found from error
            raise ConfigError(found.message, hint=found.hint) from error

    def put_folder(self, path: Path) -> str:
        """Store a copy of all files below `path`; returns the SHA-256 of their manifest.

        Raises:
            StoreError: a link or an unreadable file in it, or the disk refused.
        """
        with as_store_error(f"store {path}", self.root):
            digest = manifests.scan(path).digest
            if not self._objects.is_whole(digest):
                digest = self._objects.add(lambda folder: copy_files(path, folder))
        return self._share(digest)

    def put_bytes(self, data: bytes, *, name: str = "data") -> str:
        """Store a folder with one file; returns its digest.

        Raises:
            StoreError: the disk refused.
        """
        with as_store_error(f"store {name}", self.root):
            digest = self._objects.add(lambda folder: _write_bytes(folder / _safe(name), data))
        return self._share(digest)

    def has(self, digest: str) -> bool:
        """Whether an object is there, here or at the remote; it is not verified."""
        if self._objects.path(digest).is_dir():
            return True
        return self._remote is not None and self._remote.read(manifest_name(digest)) is not None

    def folder(self, digest: str) -> Path:
        """The read-only folder of an object, every file verified.

        Raises:
            StoreError: there is no such object, or a file in it is not what it was.
        """
        path = self._objects.path(digest)
        with as_store_error("read an object", self.root):
            if not path.is_dir():
                self._fetch(digest)
            self._objects.verify(digest)
        return path

    def remember(self, space: str, key: str, text: str) -> None:
        """Let a key name a text from now on (atomic; the last writer wins)."""
        name = _key_name(space, key)
        if self._remote is not None:
            self._remote.write(name, text)
        else:
            self._objects.write(name, text)

    def recall(self, space: str, key: str) -> str | None:
        """What a key names, or None."""
        name = _key_name(space, key)
        if self._remote is not None:
            return self._remote.read(name)
        with as_store_error(f"read {name}", self.root):
            try:
                return (self.root / name).read_text(encoding="utf-8")
            except FileNotFoundError:
                return None

    def made_once(self, space: str, key: str, make: Callable[[Path], None]) -> Path:
        """The folder that a key names; if it names none, `make` fills an empty one, which is then stored.

        Two processes of one host never make the same key at once. An exception in `make`, or a kill, leaves
        nothing behind. The key then names `{"object": digest}`.

        Raises:
            StoreError: the stored folder is not what it was, or the disk refused.
        """
        found = self._made(space, key)
        if found is not None:
            return found
        with self.lock(f"{_safe(space)}-{_safe(key)}"):
            found = self._made(space, key)
            if found is not None:
                return found
            digest = self._share(self._objects.add(make))
            self.remember(space, key, json.dumps({"object": digest}))
        return self.folder(digest)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a name against all processes and threads on this host; the kernel releases it on death."""
        with self._objects.lock(_safe(name)):
            yield

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty working folder on the store's disk, gone afterwards; after a kill the next run removes it."""
        with self._objects.scratch() as folder:
            yield folder

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Nothing is swept in here meanwhile."""
        with ExitStack() as stack:
            with as_store_error("lock the store", self.root):
                stack.enter_context(share_lock_file(self.root / "locks" / AT_WORK))
            yield

    def sweep(self, remakable: Collection[str], *, until_s: float, dry: bool = False) -> tuple[Spare, ...]:
        """Remove what was made before `until_s` (seconds since the epoch) and can be made again; `dry`: say it alone.

        A kill in the middle leaves a whole store.

        Raises:
            ConfigError: this is no folder on a disk here, or there is no store.
            StoreError: somebody is at work in it, or the disk refused.
        """
        if self._remote is not None:
            raise ConfigError(f"{self.url} is no folder on a disk here", hint="sweep a store where its folder lies")
        if not (self.root / "keys").is_dir():
            raise ConfigError(f"there is no store in {self.root}", hint="name it with --store or QPIPE_STORE")
        with as_store_error("sweep", self.root), try_lock_file(self.root / "locks" / AT_WORK) as ours:
            if not ours:
                raise StoreError(f"a run is at work in {self.root}", hint="try again when it has ended")
            found = find_spare(self.root, remakable, until_s=until_s)
            for one in () if dry else found:
                for key in one.keys:  # first: a key never leads to half an object
                    key.unlink()
                for digest in one.objects:
                    self._objects.remove(digest)
        return found

    def size(self) -> int:
        """Bytes of all objects."""
        if self._remote is not None:
            texts = [self._remote.read(manifest_name(digest)) or "[]" for digest in self._remote.digests()]
            return sum(manifests.parse(text).size_bytes for text in texts)
        with as_store_error("measure", self.root):
            return sum(folder_bytes(folder) for folder in (self.root / "objects").glob("*"))

    def clean(self) -> None:
        """Remove what killed processes left behind; done by itself at the first write."""
        self._objects.clean()

    def _made(self, space: str, key: str) -> Path | None:
        text = self.recall(space, key)
        if text is None:
            return None
        try:
            digest = str(json.loads(text)["object"])
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(
                f"{_key_name(space, key)} in the store {self.url or self.root} does not name an object",
                hint="delete that file: what it named is made again",
            ) from error
        return self.folder(digest) if self.has(digest) else None

    def _share(self, digest: str) -> str:
        if self._remote is not None:
            self._remote.upload(self._objects.path(digest), self._objects.manifest(digest))
        return digest

    def _fetch(self, digest: str) -> None:
        text = None if self._remote is None else self._remote.read(manifest_name(digest))
        if self._remote is None or text is None:
            raise StoreError(
                f"no object {digest} in the store {self.url or self.root}",
                hint="run the pipeline again: it makes what is missing",
            )
        found = hashlib.sha256(text.encode()).hexdigest()
        if found != digest:
            raise StoreError(
                f"{manifest_name(digest)} in the store {self.url} was changed: expected sha256 {digest}, found {found}",
                hint="delete that file there, and run the pipeline again",
            )
        self._objects.add(_fetcher(self._remote, manifests.parse(text)))


def _fetcher(remote: Remote, wanted: manifests.Manifest) -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        remote.download(folder, wanted)
        check_same(wanted, manifests.scan(folder), f"{remote.url}/objects/{wanted.digest}")

    return fetch


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _key_name(space: str, key: str) -> str:
    return f"keys/{_safe(space)}/{_safe(key)}.json"


def _safe(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StoreError(f"{name!r} cannot be a name in the store", hint="use letters, digits and _ . @ + -")
    return name


def _cache_folder(url: str) -> Path:
    return home() / hashlib.sha256(url.encode()).hexdigest()[:16]
