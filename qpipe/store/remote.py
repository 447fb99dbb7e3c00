"""The same layout on a remote file system through fsspec (`s3://`, `memory://` …)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, cast

from qpipe.errors import StoreError
from qpipe.store.manifest import Manifest
from qpipe.store.objects import manifest_name


class FileSystem(Protocol):
    """The few calls of `fsspec.AbstractFileSystem` that a store needs."""

    def pipe_file(self, path: str, value: bytes) -> object:
        """Write a whole file."""
        ...

    def cat_file(self, path: str) -> bytes:
        """Read a whole file."""
        ...

    def put_file(self, lpath: str, rpath: str) -> object:
        """Upload a file."""
        ...

    def get_file(self, rpath: str, lpath: str) -> object:
        """Download a file."""
        ...

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make folders, where the file system has any."""
        ...

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        ...

    def find(self, path: str) -> list[str]:
        """All files below a path."""
        ...


class Remote:
    """Objects and keys behind a URL. An object is there once its manifest is: that is uploaded last.

    Each file system has exceptions of its own, so that every one becomes a StoreError here.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs, self._base = _connect(self.url)

    def read(self, name: str) -> str | None:
        """Text of a small file, or None."""
        try:
            return self._fs.cat_file(f"{self._base}/{name}").decode()
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._error("read", name, error) from error

    def write(self, name: str, text: str) -> None:
        """Write a small file."""
        path = f"{self._base}/{name}"
        try:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(path, text.encode())
        except Exception as error:
            raise self._error("write", name, error) from error

    def upload(self, folder: Path, manifest: Manifest) -> None:
        """Put an object there, its manifest last. One that is complete already is left alone."""
        name = manifest_name(manifest.digest)
        if self.read(name) == manifest.text:
            return
        for entry in manifest.entries:
            path = f"{self._base}/objects/{manifest.digest}/{entry.name}"
            try:
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._fs.put_file(str(folder / entry.name), path)
            except Exception as error:
                raise self._error("write", entry.name, error) from error
        self.write(name, manifest.text)

    def download(self, folder: Path, manifest: Manifest) -> None:
        """Fetch all files of an object; the caller verifies them."""
        for entry in manifest.entries:
            target = folder / entry.name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._fs.get_file(f"{self._base}/objects/{manifest.digest}/{entry.name}", str(target))
            except Exception as error:
                raise self._error("read", entry.name, error) from error

    def digests(self) -> tuple[str, ...]:
        """Digests of all objects there."""
        names = (path.rpartition("/")[2] for path in self._fs.find(f"{self._base}/manifests"))
        return tuple(sorted(name.removesuffix(".json") for name in names))

    def _error(self, doing: str, name: str, error: Exception) -> StoreError:
        reason = " ".join(str(error).split()) or type(error).__name__
        return StoreError(
            f"cannot {doing} {name} in the store {self.url}: {reason}",
            hint="check the address, your credentials and the network",
        )


def _connect(url: str) -> tuple[FileSystem, str]:
    import fsspec

    try:
        fs, base = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise StoreError(
            f"cannot open the store {url}: {error}", hint="install the fsspec package of that protocol"
        ) from error
    return cast("FileSystem", fs), str(base).rstrip("/")
