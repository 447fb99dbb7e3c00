"""Outputs of the float model as given, computed once per model and data digest, and kept in the store."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qpipe.data import open_role
from qpipe.execute.jobs import ReferenceJob
from qpipe.execute.passes import count_batches, real_batches
from qpipe.measure.reference import open_reference
from qpipe.measure.rows import Outputs, run_rows
from qpipe.planning.sources import package_version, source_digest
from qpipe.records.codec import decode
from qpipe.store import Store

if TYPE_CHECKING:
    from qpipe.data import Role
    from qpipe.plugins.backend import Progress


def run_reference(request: str, progress: Progress) -> str:
    """Entry of the child: a `ReferenceJob` as JSON → the object of its outputs."""
    job = decode(ReferenceJob, request)
    role = open_role(job.data, job.role, job.model.signature)
    return reference_folder(Store(job.store), job.model.digest, job.model.file.path, role, progress).name


def try_model(request: str, _progress: Progress) -> str:
    """Entry of a child: the path of a model → nothing, if the reference runner loads it."""
    open_reference(Path(request)).close()
    return ""


def reference_outputs(store: Store, model_digest: str, path: Path, role: Role, progress: Progress) -> Outputs:
    """The outputs; whoever asks first computes them, others wait."""
    folder = reference_folder(store, model_digest, path, role, progress)
    index = json.loads((folder / "outputs.json").read_text())
    tensors = {
        name: np.load(folder / f"{number}.npy", allow_pickle=False) for number, name in enumerate(index["names"])
    }
    return Outputs(tensors=tensors, rows=index["rows"], seconds=index["seconds"])


def reference_folder(store: Store, model_digest: str, path: Path, role: Role, progress: Progress) -> Path:
    """The object that holds them: `outputs.json` and one `.npy` per output."""

    def make(folder: Path) -> None:
        session = open_reference(path)
        progress.step("float reference", total=count_batches(role))
        found = run_rows(session, real_batches(role), progress)
        session.close()
        for number, tensor in enumerate(found.tensors.values()):
            np.save(folder / f"{number}.npy", tensor, allow_pickle=False)
        index = {"names": list(found.tensors), "rows": found.rows, "seconds": found.seconds}
        (folder / "outputs.json").write_text(json.dumps(index))

    parts = (model_digest, role.digest, package_version("onnxruntime"), source_digest("measure"))
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return store.made_once("reference", key, make)
