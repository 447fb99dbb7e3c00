"""What the first bytes of a file look like, for messages about files that are not ONNX."""

from __future__ import annotations

import zipfile
from pathlib import Path

_HEADS = (
    (b"\x89HDF\r\n\x1a\n", "HDF5 (a Keras .h5 file?)"),
    (b"\x1f\x8b", "gzip"),
    (b"\x93NUMPY", "a NumPy .npy array"),
    (b"version https://git-lfs", "a Git LFS pointer; run `git lfs pull`"),
    (b"MZ", "a Windows program"),
    (b"\x7fELF", "a Linux program or library"),
    (b"<", "HTML or XML (a failed download?)"),
    (b"{", "JSON"),
)
_FLATBUFFERS = {b"TFL3": "a TensorFlow Lite model", b"ORTM": "an ONNX Runtime .ort model"}


def describe_bytes(path: Path) -> str:
    """One phrase for what the file seems to be, e.g. `it looks like a zip archive (.npz)`."""
    with path.open("rb") as file:
        head = file.read(64)
    return f"it looks like {_name(path, head)}" if _name(path, head) else _protobuf(path, head)


def _name(path: Path, head: bytes) -> str:
    if head.startswith(b"PK"):
        return _archive(path)
    if len(head) > 1 and head[0] == 0x80 and head[1] in range(2, 6):  # PROTO opcode, then the pickle protocol
        return "a Python pickle (a PyTorch or scikit-learn file?)"
    if head[4:8] in _FLATBUFFERS:
        return _FLATBUFFERS[head[4:8]]
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "a safetensors file"
    return next((name for start, name in _HEADS if head.startswith(start)), "")


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a damaged zip archive"
    if any(name.endswith("data.pkl") for name in names):
        return "a zip archive (a PyTorch checkpoint)"
    if names and all(name.endswith(".npy") for name in names):
        return "a zip archive (NumPy .npz)"
    return "a zip archive"


def _protobuf(path: Path, head: bytes) -> str:
    # Field 1 (ir_version) as a varint opens every ONNX file that the usual exporters write.
    if head[:1] == b"\x08":
        return f"it begins like ONNX but ends early or is damaged ({path.stat().st_size} bytes)"
    shown = head[:8].hex(" ")
    return f"it begins with the bytes {shown}"
