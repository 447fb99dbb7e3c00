"""Convolutions of few channels as convolutions of packs of pixels.

An image [N, H, W, C] read as [N, H, W/f, f·C] is the same bytes: f pixels of a row become one pixel of f·C channels.
A convolution over it is again a convolution, with zeros where a pixel of the pack is outside the kernel. So is one
from pixels to packs of the result alone: f times the stride and the channels, a kernel that is f − 1 strides wider.
Both compute more products; onnxruntime's integer kernels spend their time on pixels rather than products where
channels are few, and their fast path needs a multiple of 4 channels in and at least 16 out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How a convolution runs along the rows of an image: all numbers in pixels, or in packs of pixels."""

    width: int
    """Of the image."""
    kernel: int
    left: int
    right: int
    stride: int

    @property
    def outputs(self) -> int:
        """Width of the result."""
        return (self.width + self.left + self.right - self.kernel) // self.stride + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Packs:
    """Pixels in a pack of the image, and in a pack of the result."""

    image: int
    result: int


ALONE = Packs(image=1, result=1)
TWO = Packs(image=2, result=2)
FOUR = Packs(image=4, result=4)


def choose_packs(shape: tuple[int, ...], rows: Rows) -> Packs:
    """The packs that make a convolution with weights of this shape [O, C, kh, kw] faster, or `ALONE`.

    Source: paired CPU times of `QLinearConv` with and without packs on AVX512-VNNI, one thread
    (docs/benchmarks/packing.py): 0.3 to 0.9 of the time up to these widths, more than 1 beyond.
    """
    return next((packs for packs in _promising(shape[0], shape[1], rows) if fits(rows, packs)), ALONE)


def _promising(outputs: int, inputs: int, rows: Rows) -> tuple[Packs, ...]:
    """Packs by what they gain, the best first."""
    if inputs <= 4:
        return _of_an_image(outputs, inputs, rows)
    most, plain = max(inputs, outputs), rows.stride == 1 and 1 < rows.kernel < 5
    gains = {
        FOUR: most <= 8 and rows.stride == 1 and rows.kernel > 1,
        # Of the result alone: the kernel moves by as many pixels, and sees none that no pixel of the pack needs.
        Packs(image=1, result=4): most <= 16 and plain,
        TWO: most <= _widest_of_two(rows),
        Packs(image=1, result=2): inputs + outputs <= 48 and plain,
    }
    return tuple(packs for packs, gain in gains.items() if gain)


def _widest_of_two(rows: Rows) -> int:
    """Up to how many channels packs of two pixels on both sides gain."""
    if rows.stride > 1:
        return 16 if rows.stride == 2 and rows.kernel > 1 else 0
    return 24 if rows.kernel == 1 else 32 if rows.kernel >= 5 else 8


def _of_an_image(outputs: int, inputs: int, rows: Rows) -> tuple[Packs, ...]:
    """For first convolutions; those of four channels have the fast path without packs."""
    if inputs <= 3:  # as many pixels of the result as a pack of the image moves it on
        return tuple(Packs(image=size, result=max(size // rows.stride, 1)) for size in (4, 2))
    return (*((FOUR,) if outputs <= 16 else ()), *((TWO,) if outputs <= 48 or rows.kernel >= 5 else ()))


def fits(rows: Rows, packs: Packs) -> bool:
    """Whether image and result divide into these packs, and the stride falls on packs."""
    if rows.left >= rows.kernel or rows.width % packs.image or rows.outputs % packs.result:
        return False
    if rows.stride * packs.result % packs.image:
        return False
    return packed_rows(rows, packs).outputs == rows.outputs // packs.result


def packed_rows(rows: Rows, packs: Packs) -> Rows:
    """The same convolution in packs: its kernel covers what `rows` sees from every pixel of a pack of the result."""
    left = -(-rows.left // packs.image)
    right = (rows.stride * (packs.result - 1) + rows.kernel - 1 - rows.left) // packs.image
    kernel, stride = left + 1 + right, rows.stride * packs.result // packs.image
    width = rows.width // packs.image
    needed = (rows.outputs // packs.result - 1) * stride + kernel
    return Rows(width=width, kernel=kernel, left=left, right=max(needed - left - width, 0), stride=stride)


def taps(rows: Rows, packs: Packs) -> NDArray[np.int64]:
    """Columns of the kernel as they stand in the kernel of packs: [g, f, kw'], `rows.kernel` where no pixel is seen.

    For the r-th pixel of a pack of the result, and the p-th of the pack of the image at each place.
    """
    packed = packed_rows(rows, packs)
    result, image, place = np.ogrid[: packs.result, : packs.image, : packed.kernel]
    found = packs.image * (place - packed.left) + image - rows.stride * result + rows.left
    return np.where((found >= 0) & (found < rows.kernel), found, rows.kernel).astype(np.int64)


def pack_weights(weights: NDArray[np.generic], rows: Rows, packs: Packs) -> NDArray[np.generic]:
    """Weights [O, C, kh, kw] for packs: [g·O, f·C, kh, kw'], zero where no pixel is seen.

    Output channel r·O + o is channel o of the r-th pixel of a pack; input channels alike.
    """
    outputs, inputs, height, _ = weights.shape
    padded = np.pad(weights, ((0, 0), (0, 0), (0, 0), (0, 1)))
    found = padded[..., taps(rows, packs)]  # [O, C, kh, g, f, kw']
    return found.transpose(3, 0, 4, 1, 2, 5).reshape(packs.result * outputs, packs.image * inputs, height, -1)
