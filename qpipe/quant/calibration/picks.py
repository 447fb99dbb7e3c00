"""Values picked from an image by channel-wise Conv: each channel reads one tap, so what comes out is what went in.

A runtime that keeps channels in blocks runs a Conv where they lie; a Slice would have to put them back in order first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpipe.quant.numbers import F32

GOLDEN = (math.sqrt(5) - 1) / 2
"""Its multiples, taken modulo 1, spread evenly however many there are: neighbouring channels read distant places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One channel-wise Conv without padding: a grid of windows, and in each the place that a channel reads."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    taps: F32
    """[C, 1, kernel], one 1 in each channel."""


def pick_values(channels: int, height: int, width: int, wanted: int) -> tuple[Pick, ...]:
    """Picks that give about `wanted` values of an image, all of one size.

    Two cross each other: one has taps all down the middle of its windows, the other all across, and each channel reads
    another one. So every row and every column is met where a window has no more of them than there are channels.
    """
    each = max(wanted / 2 / channels, 1)
    down = _windows(height, math.sqrt(each * height / width))
    right = _windows(width, each / down)
    strides = height // down, width // right
    tall, wide = height - (down - 1) * strides[0], width - (right - 1) * strides[1]
    order = np.argsort(np.argsort(np.arange(channels) * GOLDEN % 1))
    if (tall, wide) == (1, 1):
        return (_pick(strides, _all(1, order), _all(1, order)),)
    return (
        _pick(strides, _all(tall, order), _middle(wide, order)),
        _pick(strides, _middle(tall, order), _all(wide, order)),
    )


def _windows(size: int, wanted: float) -> int:
    """About so many windows along an axis of that size; all of its places where half would not be enough."""
    count = min(max(round(wanted), 1), size)
    return size if size // count == 1 else count


def _all(span: int, order: NDArray[np.intp]) -> tuple[int, int, NDArray[np.intp]]:
    """Taps at every place of a window, their dilation, and the one that each channel reads: an equal share for all."""
    return span, 1, order * span // order.size


def _middle(span: int, order: NDArray[np.intp]) -> tuple[int, int, NDArray[np.intp]]:
    """Taps at the ends and in the middle, which all channels read: at the ends stands the padding of the image."""
    taps = min(span, 3)
    return taps, max((span - 1) // 2, 1), np.full(order.size, taps // 2)


def _pick(
    strides: tuple[int, int],
    down: tuple[int, int, NDArray[np.intp]],
    right: tuple[int, int, NDArray[np.intp]],
) -> Pick:
    (tall, every_row, rows), (wide, every_column, columns) = down, right
    taps = np.zeros((rows.size, 1, tall, wide), np.float32)
    taps[np.arange(rows.size), 0, rows, columns] = 1
    return Pick(kernel=(tall, wide), strides=strides, dilations=(every_row, every_column), taps=taps)
