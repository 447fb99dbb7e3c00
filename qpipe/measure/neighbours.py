"""Whether an engine's answer to a row depends on the rows that are run beside it."""

from __future__ import annotations

import numpy as np

from qpipe.measure.feeds import Feeds
from qpipe.measure.probe import agreements
from qpipe.measure.rows import Outputs
from qpipe.plugins.backend import Tensors

ALIKE_DB = 60.0
"""Above it batches give the same answers: float kernels sum in another order (over 100 dB), half precision over 60."""


def find_disagreement(evaluated: Outputs, answers: Feeds, rows: int) -> dict[int, float]:
    """SQNR in dB between batches of another size and the evaluated answers, for sizes where it is below `ALIKE_DB`.

    Minus infinity where the two are not finite in the same places.

    A dynamic range spans all rows of a run: the answer to a row depends on its neighbours, and what was evaluated in
    one batch size is served in another.

    Args:
        evaluated: outputs of the evaluation, rows in order; the first one counts.
        answers: outputs by batch size; the first batches hold the first rows.
        rows: how many of the first rows stand in the same order on both sides.
    """
    name = next(iter(evaluated.tensors))
    if not np.issubdtype(evaluated.tensors[name].dtype, np.floating):
        return {}
    found = {size: _agreement(evaluated, name, batches, rows) for size, batches in answers.items()}
    return {size: level for size, level in found.items() if level < ALIKE_DB}


def _agreement(evaluated: Outputs, name: str, batches: tuple[Tensors, ...], rows: int) -> float:
    """Of the rows that both have; an axis that padding made longer in the evaluation is cut to the batch's."""
    ours = np.concatenate([batch[name] for batch in batches])[: min(rows, evaluated.rows)]
    theirs = evaluated.tensors[name][(slice(len(ours)), *(slice(size) for size in ours.shape[1:]))]
    (found,) = agreements({name: theirs}, {name: ours})
    return found.db
