"""A model: a float ONNX graph named by the digest of all its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qpipe.records.tensors import Signature


def is_in_mlflow(origin: str) -> bool:
    """Whether a model's origin is an MLflow URI, and no path."""
    return origin.startswith(("models:/", "runs:/"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFile:
    """An ONNX graph on disk; `digest` covers its external data too."""

    path: Path
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The float model as the user gave it: the reference of every quality verdict."""

    name: str
    file: OnnxFile
    origin: str
    """Where it came from: a path or an MLflow URI. Never part of a key."""
    opset: int
    signature: Signature

    @property
    def digest(self) -> str:
        """SHA-256 over the manifest of all its files."""
        return self.file.digest
