"""An ONNX file as a `Model` record."""

from __future__ import annotations

from pathlib import Path

from qpipe.models.digest import digest_onnx
from qpipe.models.facts import read_facts
from qpipe.records.model import Model


def read_model(path: Path, *, name: str, origin: str) -> Model:
    """Read signature, opset and digest of a float model; its weights stay on disk.

    `origin` is where the user found it: a path or an MLflow URI.

    Raises:
        ModelError: missing, empty, truncated, not ONNX, with custom operators, inputs that are no tensors, an opset
            newer than the installed onnx, or external data outside its folder.
    """
    file = digest_onnx(path)
    facts = read_facts(path)
    return Model(name=name, file=file, origin=origin, opset=facts.opset, signature=facts.signature)
