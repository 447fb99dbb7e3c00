"""Weights in blocks along the reduced axis, each with a scale: rounding, and the layout of MatMulNBits.

Source: onnxruntime docs/ContribOperators.md, com.microsoft.MatMulNBits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import QuantizationError
from qpipe.quant.numbers import F32, F64, SMALLEST_SCALE, best_scale
from qpipe.quant.weights.gptq import gptq_blocks
from qpipe.quant.weights.int4 import SHRINKS

SMALLEST_BLOCK = 16
"""MatMulNBits takes blocks of 16 and more, powers of two."""

AT_ONCE = 2**20
"""Weights that are rounded at a time: rounding takes seven times their memory, so a table of words is cut."""


def cut(rows: F32) -> Iterator[F32]:
    """Weights [N, K] in pieces of whole rows, at least one; each is rounded by itself."""
    step = max(AT_ONCE // max(rows.shape[1], 1), 1)
    return (rows[start : start + step] for start in range(0, max(len(rows), 1), step))


def check_block_size(block_size: int) -> None:
    """Make sure that kernels take blocks of that size.

    Raises:
        QuantizationError: they do not.
    """
    if block_size < SMALLEST_BLOCK or block_size & (block_size - 1):
        raise QuantizationError(f"block size {block_size} is not a power of two of at least {SMALLEST_BLOCK}")


def split(rows: F32, block_size: int, *, repeat_last: bool = False) -> F32:
    """[N, blocks, block] of weights [N, K]; the last block is filled with zeros, or with the last weight."""
    count, width = rows.shape
    fill = -(-width // block_size) * block_size - width
    padded = np.pad(rows, ((0, 0), (0, fill)), mode="edge") if repeat_last else np.pad(rows, ((0, 0), (0, fill)))
    return padded.reshape(count, -1, block_size)


def quantize_blocks(rows: F32, bits: int, block_size: int, vectors: F32 | None = None) -> tuple[NDArray[np.uint8], F32]:
    """(integers [N, blocks, block], scales [N, blocks]) of weights [N, K], symmetric around 2^(bits−1).

    The last block is padded with zeros. With `vectors` [n, K] of the input, rounding errors are carried over to the
    columns that are still to come (GPTQ); without, each weight goes to the nearest step.
    """
    if vectors is None:
        integers, scales = zip(*(_nearest(split(part, block_size), bits) for part in cut(rows)), strict=True)
        return np.concatenate(integers), np.concatenate(scales)
    blocks = split(rows, block_size)
    scale = block_scales(blocks, bits)
    whole = np.full((len(rows), blocks.shape[1] * block_size), 2 ** (bits - 1), np.uint8)
    whole[:, : rows.shape[1]] = gptq_blocks(rows, scale, block_size, bits, vectors)
    return whole.reshape(blocks.shape), scale


def _nearest(blocks: F32, bits: int) -> tuple[NDArray[np.uint8], F32]:
    scale, middle = block_scales(blocks, bits), 2 ** (bits - 1)
    steps = np.rint(blocks / scale[:, :, None]) + middle
    return np.clip(steps, 0, 2 * middle - 1).astype(np.uint8), scale


def block_scales(blocks: F32, bits: int) -> F32:
    """Scales [N, blocks] of weights [N, blocks, block]: for each block the one with the smallest squared error.

    At 4 bits some that clip the largest weight are tried too. A scale has the sign that puts the largest weight at the
    lower end of the integers, which reaches further.
    """
    middle = 2 ** (bits - 1)
    signed = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
    base = np.where(np.abs(signed) <= middle * SMALLEST_SCALE, 1.0, -signed.astype(np.float64) / middle)

    def error(tried: F64) -> F64:
        steps = np.clip(np.rint(blocks / tried[:, :, None]), -middle, middle - 1)
        return np.asarray(np.square(steps * tried[:, :, None] - blocks).sum(axis=2))

    return best_scale(base, SHRINKS if bits == 4 else (1.0,), error).astype(np.float32)


def pack(integers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """4-bit numbers [..., n] as bytes [..., ⌈n/2⌉], two in each, the first one low; 8-bit numbers as they are."""
    if bits == 8:
        return integers
    fill = [(0, 0)] * (integers.ndim - 1) + [(0, integers.shape[-1] % 2)]
    even = np.pad(integers, fill)
    return (even[..., 0::2] | (even[..., 1::2] << 4)).astype(np.uint8)
