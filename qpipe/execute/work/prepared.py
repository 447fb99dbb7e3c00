"""A `Prepared` as a folder of the store: its record with paths relative to the folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from qpipe.records.codec import decode, encode
from qpipe.records.engine import Prepared
from qpipe.records.model import OnnxFile

FILE = "prepared.json"


def save_prepared(prepared: Prepared, folder: Path) -> None:
    """Write `prepared.json` into the folder that holds the graphs; the model as given stays where the user has it."""
    moved = replace(prepared, graph=_inside(prepared.graph, folder), qdq=prepared.qdq and _inside(prepared.qdq, folder))
    (folder / FILE).write_text(encode(moved))


def load_prepared(folder: Path, model: OnnxFile) -> Prepared:
    """The record with paths that can be opened; `model` is the one as given, wherever it lies now."""
    found = decode(Prepared, (folder / FILE).read_text())
    qdq = found.qdq and _outside(found.qdq, folder, model)
    return replace(found, graph=_outside(found.graph, folder, model), qdq=qdq)


def _inside(file: OnnxFile, folder: Path) -> OnnxFile:
    """Where the user has the model is left out: somebody else's lies elsewhere, and another one may lie there later."""
    if not file.path.is_relative_to(folder):
        return replace(file, path=Path(file.path.name))
    return replace(file, path=file.path.relative_to(folder))


def _outside(file: OnnxFile, folder: Path, model: OnnxFile) -> OnnxFile:
    return model if file.digest == model.digest else replace(file, path=folder / file.path)
