"""Try before work what the reference runner or the metric would refuse in every cell of a model."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from qpipe.errors import DataError, ModelError, UnavailableError
from qpipe.execute.children.guard import run_guarded
from qpipe.flow.cells.objects import is_done
from qpipe.records.target import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpipe.data import Role
    from qpipe.flow.workplace import Workplace
    from qpipe.plugins.backend import Tensors
    from qpipe.plugins.metric import Metric
    from qpipe.records.model import Model
    from qpipe.records.tensors import Signature

TRIAL = "qpipe.execute.work.trial:try_model"
PATIENCE_S = 600.0
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)
"""Signals of somebody else, such as the kernel's out-of-memory killer; a crash of the runner has others."""
LARGE = 50_000_000
"""Numbers in an output from which on labels are left for the cells."""


def try_models(workplace: Workplace) -> None:
    """Load every model that has work to do once in the reference runner, in a child: it may crash there.

    Raises:
        ModelError: it cannot be loaded; the message has the runner's reason.
        UnavailableError: somebody killed the child, which says nothing of the model.
    """
    for model in _with_work(workplace):
        limits = Limits(timeout_s=PATIENCE_S, memory_bytes=max(c.target.limits.memory_bytes for c in workplace.cells))
        with TemporaryDirectory(prefix="qpipe-") as folder:
            ended = run_guarded(
                TRIAL, str(model.file.path), workdir=Path(folder), limits=limits, nursery=workplace.nursery
            )
        if ended.error is None:
            continue
        said = ended.error.message
        if ended.kind == "crashed" and ended.signal in FROM_OUTSIDE:
            raise UnavailableError(f"{model.file.path}: the reference runner {said}", hint=ended.error.hint)
        message = said if ended.error.code == ModelError.code else f"{model.file.path}: the reference runner {said}"
        raise ModelError(message, hint=ended.error.hint)


def try_labels(workplace: Workplace) -> None:
    """Let a built-in metric read the gate's labels beside outputs of the right shape.

    A metric of a plugin's or the user's is left for the cells (it may look at several outputs, and refuse those that no
    model would give), and so is a model whose output shape is not known before it runs.

    Raises:
        DataError: labels that are out of range, of another shape or dtype; names file and row.
    """
    from qpipe.data import open_role
    from qpipe.metrics import find_metric, measure_units
    from qpipe.plugins.metric import Rows

    name = workplace.pipeline.metric
    if name not in workplace.registry.metrics or workplace.registry.code_of_metric(name):
        return
    metric = find_metric(name, workplace.registry.metrics.values())
    for model in _with_work(workplace):
        role = open_role(workplace.pipeline.data, "gate", model.signature)
        outputs = _stand_in(model.signature, role)
        if outputs is None or not _reads_labels(metric, role):
            continue
        try:
            measure_units(metric, Rows(outputs=outputs, columns=role.columns, label=role.data.label))
        except DataError as error:
            raise DataError(f"{role.where}: {error.message}", hint=error.hint) from error


def _with_work(workplace: Workplace) -> Iterator[Model]:
    """Models of which some cell has work to do."""
    for model in workplace.models:
        cells = [cell for cell in workplace.cells if cell.model.digest == model.digest]
        if not all(is_done(workplace.store, cell.key) for cell in cells):
            yield model


def _reads_labels(metric: Metric, role: Role) -> bool:
    label = role.data.label or metric.label
    return bool(label) and label in role.source.columns


def _stand_in(signature: Signature, role: Role) -> Tensors | None:
    """The judged output as ones in the model's shape; None where that is free beyond the batch, or large."""
    import numpy as np

    spec = next(one for one in signature.outputs if role.data.output in (None, one.name))
    row = [size for size in spec.shape[1:] if isinstance(size, int)]
    if not spec.shape or len(row) < len(spec.shape) - 1 or role.rows * math.prod(row) > LARGE:
        return None
    return {spec.name: np.broadcast_to(np.ones(1, spec.dtype), (role.rows, *row))}
