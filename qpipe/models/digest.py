"""The digest of a model: SHA-256 over a manifest of the .onnx file and all its external data."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from qpipe.errors import ModelError, nearest
from qpipe.models.facts import ExternalTensor, read_facts
from qpipe.records.model import OnnxFile
from qpipe.store.seals import seal


def digest_onnx(path: Path) -> OnnxFile:
    """Name a graph by the content of all its files; the .onnx file's own name is no part of it.

    Files are hashed in blocks; digests are kept as long as sizes and times stay.

    Raises:
        ModelError: not a readable ONNX file; external data missing, too short, or outside the model's folder.
    """
    return _named(path, _external_files(path, read_facts(path).external))


def confirm_onnx(file: OnnxFile) -> None:
    """After a graph was read: it is what its digest names.

    Raises:
        ModelError: a file of it holds something else now.
    """
    alone = file.path.is_file() and _named(file.path, ()).digest == file.digest  # need not be parsed
    if not alone and digest_onnx(file.path).digest != file.digest:
        raise ModelError(f"{file.path} was changed after the run was planned", hint="run it again: it is planned anew")


def _named(path: Path, external: tuple[tuple[str, Path], ...]) -> OnnxFile:
    files = (("", path), *external)
    held = [(name, seal(file)) for name, file in files]
    manifest = [[name, one.sha256, one.size_bytes] for name, one in held]
    digest = hashlib.sha256(json.dumps(manifest, separators=(",", ":")).encode()).hexdigest()
    return OnnxFile(path=path, digest=digest, size_bytes=sum(one.size_bytes for _, one in held))


def external_files(path: Path) -> tuple[Path, ...]:
    """The external data files of a model, in order of their names.

    Raises:
        ModelError: as `digest_onnx`.
    """
    return tuple(file for _, file in _external_files(path, read_facts(path).external))


def _external_files(model: Path, tensors: tuple[ExternalTensor, ...]) -> tuple[tuple[str, Path], ...]:
    ends: dict[str, ExternalTensor] = {}
    for tensor in tensors:
        if tensor.location not in ends or tensor.end > ends[tensor.location].end:
            ends[tensor.location] = tensor
    return tuple((location, _inside(model, ends[location])) for location in sorted(ends))


def _inside(model: Path, tensor: ExternalTensor) -> Path:
    """The file that a tensor points to, refused where it would leave the model's folder."""
    location, folder = tensor.location, model.parent.resolve()
    parts = PurePosixPath(location).parts
    strange = not location or ".." in parts or location.startswith("/") or PureWindowsPath(location).is_absolute()
    file = folder / location
    if strange or "\\" in location or not Path(os.path.realpath(file)).is_relative_to(folder):
        raise ModelError(
            f"{model}: tensor {tensor.tensor!r} points to external data {location!r} outside the model's folder",
            hint="put the data file itself (no link that leads out) beside the .onnx file, and save the model again",
        )
    if not file.is_file():
        others = (other.name for other in folder.glob("*"))
        raise ModelError(
            f"{model}: external data file {location!r} is missing{nearest(location, others)}",
            hint=f"put it into {model.parent}",
        )
    if file.stat().st_nlink > 1:
        raise ModelError(
            f"{file} is one file with {file.stat().st_nlink} names (hard links): onnx reads no external data that is",
            hint=f"give the model a copy of its own: cp {location} copy && mv copy {location}",
        )
    if file.stat().st_size < tensor.end:
        raise ModelError(
            f"{file} has {file.stat().st_size} bytes, but tensor {tensor.tensor!r} ends at byte {tensor.end}",
            hint="the external data is truncated or of another model; copy it again",
        )
    return file
