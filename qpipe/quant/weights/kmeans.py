"""One-dimensional k-means: levels of weights where only size matters, with indices packed into words.

Source: Lloyd 1982, "Least squares quantization in PCM" (iteration); Panter and Dite 1951, "Quantization distortion in
pulse-count modulation with nonuniform spacing of levels" (start: density of levels ∝ density of values ^ 1/3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qpipe.quant.numbers import F32, F64

Words = NDArray[np.uint8] | NDArray[np.uint32] | NDArray[np.uint64]
MOST_ROUNDS = 60
"""Lloyd's iterations at most."""
SMALLEST_GAIN = 1e-4
"""Lloyd stops when a round lowers the squared error by a smaller share."""
_POINTS = 1024
"""Quantiles from which the density of values is estimated."""
_WORDS: tuple[type[np.unsignedinteger], ...] = (np.uint8, np.uint32, np.uint64)
"""Types that ONNX's BitShift takes in onnxruntime."""


def learn_levels(values: NDArray[np.floating], count: int) -> F32:
    """`count` ascending levels with a small squared error to the values: the best of two starts, no randomness.

    Where there are fewer distinct values than levels, the levels are the values (the last one repeated).
    """
    ordered = np.sort(values.reshape(-1)).astype(np.float64)
    distinct = ordered[np.concatenate([[True], np.diff(ordered) > 0])] if ordered.size else np.zeros(1)
    if distinct.size <= count:
        return np.concatenate([distinct, np.full(count - distinct.size, distinct[-1])]).astype(np.float32)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    starts = (_companded(ordered, count), np.linspace(ordered[0], ordered[-1], count))
    found = [_lloyd(ordered, sums, start) for start in starts]
    return min(found, key=lambda pair: pair[1])[0].astype(np.float32)


def nearest_levels(values: NDArray[np.floating], levels: F32) -> NDArray[np.uint8]:
    """Index of the level that is nearest to each value, in the shape of the values."""
    borders = (levels[1:].astype(np.float64) + levels[:-1]) / 2
    return np.searchsorted(borders, values.reshape(-1)).astype(np.uint8).reshape(values.shape)


def _companded(ordered: F64, count: int) -> F64:
    """Levels whose density is the cube root of the values' density."""
    points = ordered[np.linspace(0, ordered.size - 1, min(_POINTS, ordered.size)).astype(np.int64)]
    # between two quantiles the density is ∝ 1/width, so width · density^(1/3) ∝ width^(2/3)
    mass = np.concatenate([[0.0], np.cumsum(np.diff(points) ** (2 / 3))])
    return np.asarray(np.interp((np.arange(count) + 0.5) / count * mass[-1], mass, points), np.float64)


def _lloyd(ordered: F64, sums: F64, start: F64) -> tuple[F64, float]:
    """(levels, squared error up to a constant) after Lloyd's iterations on sorted values and their prefix sums."""
    levels, error = start, float("inf")
    total = max(float(np.square(ordered).sum()), 1e-300)
    for _ in range(MOST_ROUNDS):
        cuts = np.concatenate([[0], np.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2), [ordered.size]])
        counts, parts = np.diff(cuts), np.diff(sums[cuts])
        levels = np.where(counts > 0, parts / np.maximum(counts, 1), levels)
        now = total - float((counts * np.square(levels)).sum())
        if error - now <= SMALLEST_GAIN * max(now, 0.0):
            return levels, min(error, now)
        error = now
    return levels, error


def word_type(bits: int) -> type[np.unsignedinteger]:
    """The word that wastes the fewest bits on indices of that width, the smallest one of equals."""
    return min(_WORDS, key=lambda word: (_width(word) / (_width(word) // bits), _width(word)))


def indices_per_word(bits: int) -> int:
    """How many indices share a word."""
    return _width(word_type(bits)) // bits


def packed_bytes(count: int, bits: int) -> int:
    """Size of that many indices in words."""
    return -(-count // indices_per_word(bits)) * _width(word_type(bits)) // 8


def pack_words(indices: NDArray[np.uint8], bits: int) -> Words:
    """Words [n] of the flattened indices, the first one in the lowest bits; the last word is filled with zeros."""
    word, each = word_type(bits), indices_per_word(bits)
    flat = indices.reshape(-1)
    padded = np.zeros(-(-flat.size // each) * each, word)
    padded[: flat.size] = flat
    shifted = padded.reshape(-1, each) << (np.arange(each) * bits).astype(word)
    words: Words = np.bitwise_or.reduce(shifted, axis=1)
    return words


def _width(word: type[np.unsignedinteger]) -> int:
    return np.dtype(word).itemsize * 8
