"""Columns of an `.npz` file, read in blocks straight from the archive; pickled arrays are refused.

What a compressed column holds is checked by zlib as it is read. A column that is stored as it is has a checksum of its
own: of a file that is sealed it was compared then, once (`check_stored`), and rows are read into place from the file.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import numpy as np

from qpipe.data.files import file_state, unreadable
from qpipe.data.sources import Array, Column, Rows
from qpipe.errors import DataError

_SAVE = "write it with numpy.savez_compressed(path, column=array, …), or use a function: {fn: module:function}"
_READ_BYTES = 1 << 18
"""Read at once where rows are small: reading 16 rows of 16 bytes costs as much as reading a thousand of them."""
_CHECKED_BYTES = 1 << 20
"""Read at once where nothing but a checksum is wanted."""
_LOCAL_HEADER = struct.Struct("<26x2H")
"""Of a member: …, lengths of its name and of what is extra. Source: PKWARE, APPNOTE.TXT, section 4.3.7."""
Stream = zipfile.ZipExtFile | io.FileIO
"""The bytes of a member: out of the archive, or of the file itself."""


class NpzSource:
    """An open `.npz`; headers are read at once, rows when they are asked for.

    `sealed`: its checksums were compared when it was sealed, and whoever reads asks afterwards whether it has changed.
    """

    def __init__(self, path: Path, *, sealed: bool = False) -> None:
        self.path = path
        self.sealed = sealed
        self._headers = _read_headers(path)
        self.columns: Mapping[str, Column] = {
            name: Column(name=name, dtype=dtype, shape=shape[1:], rows=shape[0])
            for name, (shape, _, dtype) in self._headers.items()
            if shape  # a single number is metadata, not a column
        }

    @property
    def place(self) -> str:
        """The file, for messages."""
        return str(self.path)

    @property
    def rows(self) -> int:
        """Rows of the longest column; the role checks that the columns it uses agree."""
        return max((column.rows or 0 for column in self.columns.values()), default=0)

    def read(self, name: str, rows: Rows) -> Array:
        """These rows of one column, in memory."""
        for _, block in self.blocks((name,), rows, max(1, len(rows))):
            return block[name]
        column = self.columns[name]
        return np.empty((0, *column.shape), column.dtype)

    def blocks(self, names: tuple[str, ...], rows: Rows, size: int) -> Iterator[tuple[Rows, dict[str, Array]]]:
        """These rows of several columns, at most `size` at a time: one pass, no whole column kept."""
        with ExitStack() as stack:
            archive = stack.enter_context(_open(self.path))
            members = {name: self._member(name, archive, stack) for name in names}
            at_once = size * max(1, _READ_BYTES // max(1, size * sum(member.row_bytes for member in members.values())))
            for start in range(0, len(rows), at_once):
                wanted = rows[start : start + at_once]
                read = {name: member.take(wanted) for name, member in members.items()}
                for cut in (slice(at, at + size) for at in range(0, len(wanted), size)):
                    yield wanted[cut], {name: array[cut] for name, array in read.items()}

    def _member(self, name: str, archive: zipfile.ZipFile, stack: ExitStack) -> _Member:
        known = archive.getinfo(f"{name}.npy")
        stream: Stream
        if self.sealed and _is_stored(known):
            with _damage(self.place, name):
                stream = _open_stored(self.path, known)
        else:
            stream = _open_member(archive, self.place, name)
        stack.callback(stream.close)
        return _Member(self, name, stream)

    def header(self, name: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
        """Shape, Fortran order and dtype of a member."""
        return self._headers[name]


class _Member:
    """One member of the archive as a stream of rows, read forwards."""

    def __init__(self, source: NpzSource, name: str, stream: Stream) -> None:
        shape, self._fortran, self._dtype = source.header(name)
        self._place, self._name, self._stream = source.place, name, stream
        self._shape = shape
        self.row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * self._dtype.itemsize
        self._at = 0
        self._whole: Array | None = None
        with _damage(self._place, name):
            _header(stream)

    def take(self, rows: Rows) -> Array:
        if self._fortran and len(self._shape) > 1:
            return self._from_memory(rows)
        block = np.empty((len(rows), *self._shape[1:]), self._dtype)
        flat = block.reshape(-1).view(np.uint8).data
        for start, stop in _runs(rows):
            self._skip_to(int(rows[start]))
            self._fill(flat[start * self.row_bytes : stop * self.row_bytes])
            self._at = int(rows[stop - 1]) + 1
        return block

    def _skip_to(self, row: int) -> None:
        if row > self._at:
            with _damage(self._place, self._name):
                self._stream.seek((row - self._at) * self.row_bytes, 1)

    def _fill(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            with _damage(self._place, self._name):
                part = self._stream.readinto(view[done : done + (1 << 20)])
            if not part:
                raise _damaged(self._place, self._name, "it ends early")
            done += part

    def _from_memory(self, rows: Rows) -> Array:
        # Rows of a Fortran-ordered array are scattered through the file: read it once.
        if self._whole is None:
            flat = np.empty(int(np.prod(self._shape, dtype=np.int64)), self._dtype)
            self._fill(flat.view(np.uint8).data)
            self._whole = flat.reshape(self._shape, order="F")
        taken: Array = np.ascontiguousarray(self._whole[rows])
        return taken


def check_stored(path: Path) -> None:
    """Compare the checksums of the columns that are stored as they are; compressed ones are checked as they are read.

    Raises:
        DataError: the file is no whole `.npz`, or a column is damaged.
    """
    with _open(path) as archive:
        for member in filter(_is_stored, archive.infolist()):
            name = member.filename.removesuffix(".npy")
            with _open_member(archive, str(path), name) as stream, _damage(str(path), name):
                while stream.read(_CHECKED_BYTES):
                    pass


def _is_stored(member: zipfile.ZipInfo) -> bool:
    """Whether its bytes stand in the file as they are: neither compressed nor encrypted."""
    return member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1


def _open_stored(path: Path, member: zipfile.ZipInfo) -> Stream:
    """The file itself, where the bytes of a member begin."""
    file = io.FileIO(path)
    try:
        file.seek(member.header_offset)
        _skip_header(file)
    except BaseException:
        file.close()
        raise
    return file


def _skip_header(file: io.FileIO) -> None:
    header = file.read(_LOCAL_HEADER.size)
    if not header.startswith(b"PK\3\4") or len(header) < _LOCAL_HEADER.size:
        raise zipfile.BadZipFile("no member begins where the index says")
    file.seek(sum(_LOCAL_HEADER.unpack(header)), io.SEEK_CUR)


def _runs(rows: Rows) -> Iterator[tuple[int, int]]:
    """Stretches of consecutive row numbers, as positions."""
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    yield from zip([0, *cuts.tolist()], [*cuts.tolist(), len(rows)], strict=True)


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path} is not a whole .npz file ({error})", hint=_SAVE) from error
    except OSError as error:
        raise unreadable(path, error) from error


def _read_headers(path: Path) -> dict[str, tuple[tuple[int, ...], bool, np.dtype[np.generic]]]:
    file_state(path)
    headers: dict[str, tuple[tuple[int, ...], bool, np.dtype[np.generic]]] = {}
    with _open(path) as archive:
        for member in archive.namelist():
            if not member.endswith(".npy"):
                raise DataError(f"{path} holds {member!r}, which is not a NumPy array", hint=_SAVE)
            name = member.removesuffix(".npy")
            if name in headers:
                raise DataError(f"{path} holds two columns {name!r}", hint=_SAVE)
            headers[name] = _checked(path, name, archive)
    if not headers:
        raise DataError(f"{path} holds no columns", hint=_SAVE)
    return headers


def _checked(path: Path, name: str, archive: zipfile.ZipFile) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    with _open_member(archive, str(path), name) as stream, _damage(str(path), name):
        shape, fortran, dtype = _header(stream)
        held_bytes = archive.getinfo(f"{name}.npy").file_size - stream.tell()
    if dtype.hasobject:
        raise DataError(
            f"{path}: column {name!r} holds pickled Python objects, which qpipe never loads",
            hint="save text by array.astype(str), rows of unequal length padded to one (data.trim: a 0/1 mask of them)",
        )
    if dtype.names is not None:
        raise DataError(f"{path}: column {name!r} is a structured array", hint="save each field as a column of its own")
    # Asked of the archive's index before anybody makes room for as many rows as a header says.
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > held_bytes:
        raise _damaged(str(path), name, f"its header says {dtype.name}{list(shape)}, it holds {held_bytes:,} bytes")
    return shape, fortran, dtype


def _header(stream: Stream) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"array format {version[0]}.{version[1]} is not known")


def _open_member(archive: zipfile.ZipFile, place: str, name: str) -> zipfile.ZipExtFile:
    with _damage(place, name):
        return cast("zipfile.ZipExtFile", archive.open(f"{name}.npy"))


@contextmanager
def _damage(place: str, name: str) -> Iterator[None]:
    """Whatever a damaged archive makes zipfile and numpy say, as a DataError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise _damaged(place, name, str(error)) from error


def _damaged(place: str, name: str, why: str) -> DataError:
    return DataError(f"{place}: column {name!r} is damaged ({why})", hint="write or copy the file again")
