"""The record of an ONNX file that a stage has written."""

from __future__ import annotations

from pathlib import Path

from qpipe.records.model import OnnxFile


def describe(path: Path) -> OnnxFile:
    """Path, digest and size of a graph, external data included."""
    import hashlib

    import onnx
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    files = {path}
    for tensor in _get_all_tensors(onnx.load(path, load_external_data=False)):
        if uses_external_data(tensor):
            files.update(path.parent / entry.value for entry in tensor.external_data if entry.key == "location")
    digest = hashlib.sha256()
    for file in sorted(files):
        with file.open("rb") as content:
            digest.update(file.name.encode() + b"\0" + hashlib.file_digest(content, "sha256").digest())
    return OnnxFile(path=path, digest=digest.hexdigest(), size_bytes=sum(file.stat().st_size for file in files))
