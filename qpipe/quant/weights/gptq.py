"""GPTQ: round column by column, and let the columns still to come make up for the error.

Source: Frantar et al. 2023, arXiv:2210.17323, algorithm 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpipe.quant.numbers import F32

BATCH = 64
"""Columns between two updates of all that follow (section 3.3, step 2)."""
DAMPING = 0.01
"""Share of the mean diagonal that is added to the Hessian (section 3.3, step 3)."""


def gptq_blocks(rows: F32, scale: F32, block_size: int, bits: int, vectors: F32) -> NDArray[np.uint8]:
    """Integers [N, K] of weights [N, K] on the grid of `scale` [N, blocks], given input vectors [n, K]."""
    middle = 2 ** (bits - 1)
    work = rows.astype(np.float64)
    upper = _inverse_factor(vectors.astype(np.float64))
    integers = np.zeros(rows.shape, np.uint8)
    for start in range(0, rows.shape[1], BATCH):
        end = min(start + BATCH, rows.shape[1])
        errors = np.zeros((rows.shape[0], end - start))
        for column in range(start, end):
            step = scale[:, column // block_size].astype(np.float64)
            rounded = np.clip(np.rint(work[:, column] / step), -middle, middle - 1)
            integers[:, column] = (rounded + middle).astype(np.uint8)
            error = (work[:, column] - rounded * step) / upper[column, column]
            work[:, column + 1 : end] -= np.outer(error, upper[column, column + 1 : end])
            errors[:, column - start] = error
        work[:, end:] -= errors @ upper[start:end, end:]
    return integers


def _inverse_factor(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Upper Cholesky factor of the inverse of H = 2·XᵀX/n, damped."""
    hessian = 2.0 * vectors.T @ vectors / max(len(vectors), 1)
    diagonal = np.diag(hessian).copy()
    dead = diagonal == 0
    hessian[dead, dead] = 1.0
    hessian[np.diag_indices_from(hessian)] += DAMPING * max(float(diagonal.mean()), 1e-12)
    inverse = np.linalg.inv(hessian)
    return np.asarray(np.linalg.cholesky((inverse + inverse.T) / 2.0).T, np.float64)
