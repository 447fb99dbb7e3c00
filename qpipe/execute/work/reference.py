"""Outputs of the float model as given, computed once per model and data digest, and kept in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.data import open_role, role_digest
from qpipe.execute.jobs import ReferenceJob
from qpipe.execute.work.outputs import kept_outputs, outputs_key
from qpipe.execute.work.passes import count_batches, pass_batches, pass_name
from qpipe.measure.reference import open_reference
from qpipe.measure.rows import Outputs, run_rows
from qpipe.models import confirm_onnx
from qpipe.planning.sources import source_digest
from qpipe.plugins.packages import package_version
from qpipe.records.codec import decode
from qpipe.store import Store

if TYPE_CHECKING:
    from qpipe.data import Role
    from qpipe.plugins.backend import Progress
    from qpipe.records.cell import Cell
    from qpipe.records.model import Model

SPACE = "reference"


def run_reference(request: str, progress: Progress) -> str:
    """Entry of the child: a `ReferenceJob` as JSON → the key of its outputs in the store."""
    job = decode(ReferenceJob, request)
    role = open_role(job.data, job.role, job.model.signature)
    reference_outputs(Store(job.store), job.model, role, progress, fresh=job.fresh)
    return reference_key(job.model.digest, role.digest) + job.fresh


def reference_key(model_digest: str, data_digest: str, size: int | None = None) -> str:
    """What names the float model's outputs on the rows of a role, `size` at once (None: as many as stay light)."""
    code = source_digest("data", "measure")
    return outputs_key(model_digest, data_digest, pass_name(size), package_version("onnxruntime"), code)


def has_reference(store: Store, cell: Cell) -> bool:
    """Whether somebody has computed those of a cell before."""
    key = reference_key(cell.model.digest, role_digest(cell.data, cell.role))
    return store.recall(SPACE, key) is not None


def reference_outputs(
    store: Store, model: Model, role: Role, progress: Progress, size: int | None = None, *, fresh: str = ""
) -> Outputs:
    """The outputs, `size` rows at once (None: as many as stay light); whoever asks first computes them, others wait.

    A fresh run has its own, by its token: what a data function gives may have changed unseen.
    """

    def compute() -> Outputs:
        session = open_reference(model.file)
        progress.step("float reference", total=count_batches(role, size))
        found = run_rows(session, pass_batches(role, size), progress)
        session.close()
        confirm_onnx(model.file)
        return found

    return kept_outputs(store, SPACE, reference_key(model.digest, role.digest, size) + fresh, compute)
