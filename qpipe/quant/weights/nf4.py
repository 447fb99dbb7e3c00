"""NF4: sixteen levels at the quantiles of a normal distribution, with the largest magnitude of each block as scale.

Source: Dettmers et al. 2023, arXiv:2305.14314, appendix E (levels); onnxruntime docs/ContribOperators.md, MatMulBnb4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpipe.quant.numbers import F32
from qpipe.quant.weights.blocks import AT_ONCE

LEVELS = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    np.float32,
)
QUANT_TYPE = 1
"""MatMulBnb4's attribute for these levels."""


def quantize_nf4(rows: F32, block_size: int) -> tuple[NDArray[np.uint8], F32]:
    """(indices of levels [N·K], largest magnitudes [blocks]) of weights [N, K], in blocks of the flattened array."""
    flat = rows.reshape(-1)
    step = max(AT_ONCE // block_size, 1) * block_size
    found = [_round(flat[start : start + step], block_size) for start in range(0, max(flat.size, 1), step)]
    indices, largest = zip(*found, strict=True)
    return np.concatenate(indices), np.concatenate(largest)


def _round(flat: F32, block_size: int) -> tuple[NDArray[np.uint8], F32]:
    blocks = -(-flat.size // block_size)
    padded = np.zeros(blocks * block_size, np.float32)
    padded[: flat.size] = flat
    parts = padded.reshape(blocks, block_size)
    largest = np.abs(parts).max(axis=1)
    unit = parts / np.where(largest > 0, largest, 1.0)[:, None]
    borders = (LEVELS[1:] + LEVELS[:-1]) / 2
    return np.searchsorted(borders, unit.reshape(-1)).astype(np.uint8)[: flat.size], largest.astype(np.float32)


def pack_nf4(indices: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Indices [n] as bytes [⌈n/2⌉], two in each, the first one high: as MatMulBnb4 stores them."""
    even = np.concatenate([indices, np.full(indices.size % 2, 7, np.uint8)])
    packed: NDArray[np.uint8] = ((even[0::2] << 4) | even[1::2]).astype(np.uint8)
    return packed
