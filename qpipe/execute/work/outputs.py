"""Outputs over all rows of a role, kept in the store: what one computation gives is computed once."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING

import numpy as np

from qpipe.measure.rows import Outputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qpipe.records.tensors import Signature
    from qpipe.store import Store

FILE = "outputs.json"
SMALL_BYTES = 64 << 20
"""Outputs of an engine up to this size are kept; those of the float model always are."""


def outputs_key(*parts: str) -> str:
    """One key for all that decides the outputs."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def kept_outputs(store: Store, space: str, key: str, compute: Callable[[], Outputs]) -> Outputs:
    """The outputs that the key names; whoever asks first computes them, others wait."""
    return _load(store.made_once(space, key, lambda folder: _save(compute(), folder)))


def are_small(signature: Signature, rows: int) -> bool:
    """Whether the outputs over so many rows are known to be worth keeping, before they are there."""
    row_bytes = 0
    for spec in signature.outputs:
        row = [size for size in spec.shape[1:] if isinstance(size, int)]
        if not spec.shape or len(row) < len(spec.shape) - 1:
            return False
        row_bytes += math.prod(row) * np.dtype(spec.dtype).itemsize
    return rows * row_bytes <= SMALL_BYTES


def _save(outputs: Outputs, folder: Path) -> None:
    """`outputs.json` and one `.npy` per output."""
    for number, tensor in enumerate(outputs.tensors.values()):
        np.save(folder / f"{number}.npy", tensor, allow_pickle=False)
    index = {"names": list(outputs.tensors), "rows": outputs.rows, "seconds": outputs.seconds}
    (folder / FILE).write_text(json.dumps(index))


def _load(folder: Path) -> Outputs:
    index = json.loads((folder / FILE).read_text())
    tensors = {
        name: np.load(folder / f"{number}.npy", allow_pickle=False) for number, name in enumerate(index["names"])
    }
    return Outputs(tensors=tensors, rows=index["rows"], seconds=index["seconds"])
