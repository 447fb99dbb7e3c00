"""A pipeline file over another one: what many files share stands once."""

from __future__ import annotations

import os
from pathlib import Path

from qpipe.config.document import Document, read_document
from qpipe.config.paths import resolve_path
from qpipe.errors import ConfigError, nearest

KEY = "base"


def read_over_base(path: Path, *, kind: str, above: tuple[Path, ...] = ()) -> Document:
    """A file joined with the one that its key `base` names, which may have a base of its own.

    Mappings are joined key by key; anything else that the file writes stands in the place of the base's.

    Raises:
        ConfigError: as `read_document`, of either file; a base that is no path, or the file itself.
    """
    document = read_document(path, kind=kind)
    named = document.data.get(KEY)
    if named is None:
        return document
    line = document.place((KEY,))
    if not isinstance(named, str):
        raise ConfigError(f"{line}: base is the path of another {kind} file", hint="base: fleet.yaml")
    below = (*above, path.resolve())
    base = resolve_path(named, path.parent)
    if Path(os.path.realpath(base)) in below:
        raise ConfigError(f"{line}: base {named!r} leads back to this file", hint="leave `base` out of the last one")
    if not base.is_file():
        siblings = (file.name for file in base.parent.glob("*.y*ml")) if base.parent.is_dir() else ()
        raise ConfigError(f"{line}: base {base}: no such file{nearest(base.name, siblings)}", hint="base: fleet.yaml")
    shared = read_over_base(base, kind=kind, above=below)
    return Document(path=path, data=_joined(shared.data, document.data), lines=document.lines, base=shared)


def _joined(base: dict[str, object], over: dict[str, object]) -> dict[str, object]:
    joined = dict(base)
    for key, value in over.items():
        below = base.get(key)
        joined[key] = _joined(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return joined
