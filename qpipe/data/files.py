"""A data file as it stands on disk: there, regular, readable."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from qpipe.errors import DataError, nearest

_LOCAL = "qpipe reads local files; rows from elsewhere come through a function of yours: {fn: module:function}"


def file_state(path: Path) -> os.stat_result:
    """Size and times of a data file.

    Raises:
        DataError: it is missing, an address, a folder or a device, or cannot be looked at.
    """
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise unreadable(path, error) from error
    if stat.S_ISDIR(found.st_mode):
        raise DataError(f"{path} is a folder, not an .npz file", hint="name the file in it")
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path} is no regular file", hint="rows are read several times: write them to a file")
    return found


def is_missing(path: Path) -> bool:
    """Whether there is nothing of that name, and not something else that is wrong with it."""
    try:
        path.stat()
    except FileNotFoundError:
        return not _is_address(path)
    except OSError:
        return False
    return False


def unreadable(path: Path, error: OSError) -> DataError:
    """What the system said of a file, as an error of ours."""
    return DataError(f"{path} cannot be read: {error.strerror or error}", hint="look at its name, rights and disk")


def _missing(path: Path) -> DataError:
    if _is_address(path):
        return DataError(f"{path}: an address is no data file", hint=_LOCAL)
    siblings = (file.name for file in path.parent.glob("*")) if path.parent.is_dir() else ()
    hint = "paths are relative to the pipeline file"
    return DataError(f"{path}: no such data file{nearest(path.name, siblings)}", hint=hint)


def _is_address(path: Path) -> bool:
    return any(part.endswith(":") for part in path.parts)  # s3://…, https://…, as paths have it
