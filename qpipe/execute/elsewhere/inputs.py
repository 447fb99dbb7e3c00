"""The files that a job reads by path: how they reach a machine that does not see them."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.models.digest import digest_onnx, external_files
from qpipe.store.seals import seal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qpipe.records.data import DataSpec
    from qpipe.records.model import Model
    from qpipe.store import Store

SPACE = "inputs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A file by its path on the machine that ordered the work, and the object of the store that holds it."""

    path: str
    object: str


def input_files(data: DataSpec, model: Model | None = None) -> tuple[Path, ...]:
    """The model and the `.npz` files; functions of the user's are imported where the work is done."""
    files = [role.npz for role in data.roles if role.npz is not None]
    return tuple(dict.fromkeys([model.file.path, *files] if model is not None else files))


def share_inputs(files: Iterable[Path], store: Store) -> tuple[Input, ...]:
    """Put the files into the store, each once; a model with its external data."""
    return tuple(Input(path=str(path), object=_share(path, store)) for path in files)


def _share(path: Path, store: Store) -> str:
    external = external_files(path) if path.suffix == ".onnx" else ()
    key = digest_onnx(path).digest if external else seal(path).sha256

    def fill(folder: Path) -> None:
        shutil.copyfile(path, folder / path.name)
        for data in external:
            place = folder / data.relative_to(path.parent.resolve())
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data, place)

    return store.made_once(SPACE, f"{key}-{_name_digest(path)}", fill).name


def _name_digest(path: Path) -> str:
    """The name is part of the object: two equal files of other names are two objects."""
    return hashlib.sha256(path.name.encode()).hexdigest()[:16]


def localize(request: str, inputs: Iterable[Input], store: Store) -> str:
    """The request with every such path as it is on this machine: fetched from the store and verified."""
    places = {one.path: str(store.folder(one.object) / Path(one.path).name) for one in inputs}
    return json.dumps(_replaced(json.loads(request), places))


def _replaced(value: object, places: Mapping[str, str]) -> object:
    if isinstance(value, str):
        return places.get(value, value)
    if isinstance(value, list):
        return [_replaced(item, places) for item in value]
    if isinstance(value, dict):
        return {key: _replaced(item, places) for key, item in value.items()}
    return value
