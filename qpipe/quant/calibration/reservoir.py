"""A bounded, even sample of the vectors that pass: for what depends on single channels (smoothing, second moments)."""

from __future__ import annotations

import numpy as np

from qpipe.quant.numbers import F32

KEPT_BYTES = 2 * 2**20
"""Memory of one reservoir."""


class Reservoir:
    """Keeps every k-th vector; when it is full, every other one goes and k doubles. Deterministic."""

    __slots__ = ("_kept", "_seen", "_stride")

    def __init__(self) -> None:
        self._kept: list[F32] = []
        self._seen = 0
        self._stride = 1

    def add(self, vectors: F32) -> None:
        """Offer vectors [n, K]; those that are kept are copied."""
        offset = -self._seen % self._stride
        self._seen += len(vectors)
        self._kept += [row.copy() for row in vectors[offset :: self._stride]]
        room = max(KEPT_BYTES // max(4 * vectors.shape[1], 1), 16)
        while len(self._kept) > room:
            self._kept = self._kept[::2]
            self._stride *= 2

    def rows(self) -> F32:
        """The kept vectors, [n, K], finite ones alone; [0, 0] where there were none."""
        sizes = {row.size for row in self._kept}
        if len(sizes) != 1:
            return np.zeros((0, 0), np.float32)
        rows = np.stack(self._kept)
        return rows[np.isfinite(rows).all(axis=1)]
