"""Writing and reading engine folders."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path, PurePath

from qpipe.errors import BuildError, EngineError, StoreError
from qpipe.records import codec
from qpipe.records.engine import Built, Engine, EngineFile, EngineManifest, Kind
from qpipe.records.tensors import Signature
from qpipe.store.manifest import file_sha256, list_files

MANIFEST = "engine.json"


def write_engine(
    workdir: Path,
    built: Built,
    *,
    model: str,
    model_digest: str,
    recipe: str,
    target: str,
    backend: str,
    signature: Signature,
    kind: Kind = "measured",
) -> Engine:
    """Write `engine.json` beside the files that a backend built in `workdir`.

    Raises:
        BuildError: a listed file is missing or outside, or a file is there that the backend did not list.
    """
    _check_files(workdir, built, backend)
    manifest = EngineManifest(
        model=model,
        model_digest=model_digest,
        recipe=recipe,
        target=target,
        backend=backend,
        files=(
            *(_engine_file(workdir, path.as_posix()) for path in built.files),
            *(_engine_file(workdir, path.as_posix(), artifact=True) for path in built.artifacts),
        ),
        signature=signature,
        requires=built.requires,
        toolchain=built.toolchain,
        placement=built.placement,
        facts=built.facts,
        kind=kind,
        notes=built.notes,
    )
    data = codec.encode(manifest).encode()
    (workdir / MANIFEST).write_bytes(data)
    return _engine(workdir, manifest, data)


def read_engine(path: Path) -> Engine:
    """The engine of a folder, every listed file verified; files that it does not list are not its own.

    Raises:
        EngineError: no engine there, or a file is missing or is not what it was.
    """
    try:
        data = (path / MANIFEST).read_bytes()
        manifest = codec.decode(EngineManifest, data)
    except OSError as error:
        raise EngineError(
            f"no engine in {path}: {MANIFEST}: {error.strerror}", hint="an engine is a folder with engine.json in it"
        ) from error
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise EngineError(f"{path / MANIFEST} is broken: {reason}", hint="build the engine again") from error
    if not manifest.files:
        raise EngineError(f"{path / MANIFEST} lists no files", hint="build the engine again")
    for file in manifest.files:
        _verify(path, file)
    return _engine(path, manifest, data)


def _engine(path: Path, manifest: EngineManifest, data: bytes) -> Engine:
    said = {field.name: getattr(manifest, field.name) for field in fields(manifest)}
    return Engine(path=path, digest=hashlib.sha256(data).hexdigest(), **said)


def _check_files(workdir: Path, built: Built, backend: str) -> None:
    listed = [path.as_posix() for path in (*built.files, *built.artifacts)]
    if not built.files:
        raise BuildError(f"backend {backend} built no files", hint="`Built.files` names at least the main file")
    try:
        there = set(list_files(workdir)) - {MANIFEST}
    except StoreError as error:
        raise BuildError(f"backend {backend}: {error.message}", hint=error.hint) from error
    for name in listed:
        if not _is_inside(name) or name == MANIFEST:
            raise BuildError(
                f"backend {backend} lists {name}, which is no file of its own in the work folder",
                hint="`Built.files` are relative to the work folder",
            )
        if name not in there:
            raise BuildError(f"backend {backend} lists {name}, but did not write it", hint=f"work folder: {workdir}")
    if len(set(listed)) < len(listed):
        raise BuildError(f"backend {backend} lists a file twice: {', '.join(listed)}")
    if extra := sorted(there - set(listed)):
        raise BuildError(
            f"backend {backend} left {extra[0]} in the work folder without listing it",
            hint="list it in `Built.files`, or remove it after the build",
        )


def _engine_file(workdir: Path, name: str, *, artifact: bool = False) -> EngineFile:
    path = workdir / name
    return EngineFile(name=name, sha256=file_sha256(path), size_bytes=path.stat().st_size, artifact=artifact)


def _is_inside(name: str) -> bool:
    path = PurePath(name)
    return not path.is_absolute() and ".." not in path.parts and name not in {"", "."}


def _verify(folder: Path, file: EngineFile) -> None:
    """Compare one file with the manifest: its size first, which is cheap and says more.

    Raises:
        EngineError: naming the file, what was expected and what was found.
    """
    path = folder / file.name
    hint = "the engine was changed after it was built: fetch it again from where it was logged, or build it again"
    if not _is_inside(file.name):
        raise EngineError(f"{folder / MANIFEST} lists {file.name}, which lies outside the engine", hint=hint)
    try:
        size_bytes = path.stat().st_size
        found = file_sha256(path) if size_bytes == file.size_bytes else ""
    except OSError as error:
        raise EngineError(f"engine file {path}: {error.strerror}", hint=hint) from error
    if size_bytes != file.size_bytes:
        raise EngineError(f"engine file {path}: expected {file.size_bytes} bytes, found {size_bytes}", hint=hint)
    if found != file.sha256:
        raise EngineError(f"engine file {path}: expected sha256 {file.sha256}, found {found}", hint=hint)
