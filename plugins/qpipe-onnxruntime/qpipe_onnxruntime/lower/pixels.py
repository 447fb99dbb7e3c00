"""Convolutions of few channels as convolutions of packs of pixels.

An image [N, H, W, C] read as [N, H, W/f, f·C] is the same bytes: f pixels of a row become one pixel of f·C channels.
A convolution over it is again a convolution, with zeros where a pixel of the pack is outside the kernel. So is one
from pixels to packs of the result alone: f times the stride and the channels, a kernel that is f − 1 strides wider.
Both compute more products for fewer pixels; what that gains is in `choices`.
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
