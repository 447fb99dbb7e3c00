"""A `Prepared` as a folder of the store: its record with paths relative to the folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from qpipe.records.codec import decode, encode
from qpipe.records.engine import Prepared
from qpipe.records.model import OnnxFile

FILE = "prepared.json"


def save_prepared(prepared: Prepared, folder: Path) -> None:
    """Write `prepared.json` into the folder that holds the graphs; graphs elsewhere (the user's model) stay there."""
    moved = replace(prepared, graph=_inside(prepared.graph, folder), qdq=prepared.qdq and _inside(prepared.qdq, folder))
    (folder / FILE).write_text(encode(moved))


def load_prepared(folder: Path) -> Prepared:
    """The record with paths that can be opened."""
    found = decode(Prepared, (folder / FILE).read_text())
    return replace(found, graph=_outside(found.graph, folder), qdq=found.qdq and _outside(found.qdq, folder))


def _inside(file: OnnxFile, folder: Path) -> OnnxFile:
    if not file.path.is_relative_to(folder):
        return file
    return replace(file, path=file.path.relative_to(folder))


def _outside(file: OnnxFile, folder: Path) -> OnnxFile:
    return replace(file, path=folder / file.path)
