"""A pipeline file over another one: what many files share stands once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qpipe.config.document import Document, read_document
from qpipe.config.paths import resolve_path
from qpipe.errors import ConfigError, nearest

KEY = "base"
NAME = "{name}"
"""Stands in any text of a pipeline file for the name of the pipeline."""


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
        there = base.parent.glob("*.y*ml") if base.parent.is_dir() else ()
        siblings = (
            file.name for file in there if Path(os.path.realpath(file)) not in below
        )  # none that leads back to this file
        raise ConfigError(f"{line}: base {base}: no such file{nearest(base.name, siblings)}", hint="base: fleet.yaml")
    shared = read_over_base(base, kind=kind, above=below)
    return Document(path=path, data=_joined(shared.data, document.data), lines=document.lines, base=shared)


def with_its_name(document: Document) -> Document:
    """The document with its own name wherever a text says `{name}`: paths of many models stand once, in their base."""
    name = document.data.get("name")
    filled = _filled(document.data, name) if isinstance(name, str) else document.data
    return replace(document, data=filled) if isinstance(filled, dict) else document


def _filled(value: object, name: str) -> object:
    if isinstance(value, dict):
        return {key: _filled(below, name) for key, below in value.items()}
    if isinstance(value, list):
        return [_filled(below, name) for below in value]
    return value.replace(NAME, name) if isinstance(value, str) else value


def without_bases(files: Sequence[Path], *, kind: str) -> tuple[Path, ...]:
    """The files, each once, but for those without a name that another of them stands over: `*.yaml` names these too."""
    files = tuple(dict.fromkeys(files))
    below = {base for file in files for base in _below(file, kind)}
    return tuple(file for file in files if Path(os.path.realpath(file)) not in below)


def _below(file: Path, kind: str) -> set[Path]:
    """The bases of a file that have no name of their own; none where something is wrong with it."""
    try:
        document = read_over_base(file, kind=kind).base
    except ConfigError:
        return set()
    found = set()
    while document is not None:
        if ("name",) not in document.lines:
            found.add(Path(os.path.realpath(document.path)))
        document = document.base
    return found


def _joined(base: dict[str, object], over: dict[str, object]) -> dict[str, object]:
    joined = dict(base)
    for key, value in over.items():
        below = base.get(key)
        joined[key] = _joined(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return joined
