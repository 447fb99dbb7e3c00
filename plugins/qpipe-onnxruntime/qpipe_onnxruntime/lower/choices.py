"""Which packs of pixels make a convolution faster, by the processor that computes it.

Source: paired CPU times of `QLinearConv` with and without packs, one thread, on AVX512-VNNI with and without AMX
(docs/benchmarks/packing.md). onnxruntime's fast path computes 16 output channels at once, so packs always pay below
that. Beyond, they trade pixels for products, which cost little on tiles and much without them.
"""

from __future__ import annotations

from collections.abc import Callable

from qpipe.records.scheme import Scheme
from qpipe_onnxruntime.lower.pixels import ALONE, Packs, Rows, fits

Choice = Callable[[tuple[int, ...], Rows], Packs]
"""From the shape of a convolution's weights [O, C, kh, kw], and how it runs along rows, to its packs."""

TWO = Packs(image=2, result=2)
FOUR = Packs(image=4, result=4)
# Of the result alone: the kernel moves by as many pixels, and sees none that no pixel of the pack needs.
TWO_OUT = Packs(image=1, result=2)
FOUR_OUT = Packs(image=1, result=4)
FAST = 16
"""Output channels of onnxruntime's fast path."""


def choice_of(scheme: Scheme) -> Choice:
    """How packs are chosen where this scheme is computed."""
    if not scheme.packs:
        return no_packs
    return on_tiles if scheme.tiles else by_products


def no_packs(_shape: tuple[int, ...], _rows: Rows) -> Packs:
    """Every convolution as it is."""
    return ALONE


def on_tiles(shape: tuple[int, ...], rows: Rows) -> Packs:
    """The packs that make a convolution faster on AMX tiles, or `ALONE`."""
    return _first_that_fits(_few_pixels, shape, rows)


def by_products(shape: tuple[int, ...], rows: Rows) -> Packs:
    """The packs that make a convolution faster on AVX512-VNNI without tiles, or `ALONE`."""
    return _first_that_fits(_few_products, shape, rows)


def _first_that_fits(
    gaining: Callable[[int, int, Rows], tuple[Packs, ...]], shape: tuple[int, ...], rows: Rows
) -> Packs:
    """Of those that gain by the rule of a processor, and of a first convolution by what holds on all."""
    outputs, inputs = shape[:2]
    packs = gaining(outputs, inputs, rows) if inputs > 3 else _of_an_image(rows)
    return next((found for found in packs if fits(rows, found)), ALONE)


def _of_an_image(rows: Rows) -> tuple[Packs, ...]:
    """For first convolutions: as many pixels of the result as a pack of the image moves it on."""
    return tuple(Packs(image=size, result=max(size // rows.stride, 1)) for size in (4, 2))


def _gaining(gains: dict[Packs, bool]) -> tuple[Packs, ...]:
    """Those that gain, the best first."""
    return tuple(packs for packs, gain in gains.items() if gain)


def _few_products(outputs: int, inputs: int, rows: Rows) -> tuple[Packs, ...]:
    """Packs that leave no lane of the fast path empty, and few others: products count."""
    most, slow, plain = max(inputs, outputs), outputs < FAST, _is_plain(rows)
    partly = inputs < FAST or outputs % FAST > 0
    return _gaining(
        {
            FOUR_OUT: plain and slow and most <= 16,
            TWO_OUT: plain and (slow or (partly and outputs <= 24 and inputs <= 32)),
            TWO: not plain and (slow or _is_gathered(outputs, inputs, rows)),
        }
    )


def _is_gathered(outputs: int, inputs: int, rows: Rows) -> bool:
    """Whether a large kernel, or a pixel of four channels, takes longer to gather than to multiply."""
    large = rows.kernel >= 5 and rows.stride == 1 and inputs + outputs <= 48
    return large or (inputs <= 4 and outputs <= (24 if rows.kernel > 1 else 16))


def _few_pixels(outputs: int, inputs: int, rows: Rows) -> tuple[Packs, ...]:
    """Packs by how many pixels they save."""
    most, plain = max(inputs, outputs), _is_plain(rows)
    if inputs <= 4:  # these have the fast path without packs
        return _gaining({FOUR: outputs <= 16, TWO: outputs <= 48 or rows.kernel >= 5})
    return _gaining(
        {
            FOUR: most <= 8 and rows.stride == 1 and rows.kernel > 1,
            FOUR_OUT: most <= 16 and plain,
            TWO: most <= _widest_of_two(rows),
            TWO_OUT: inputs + outputs <= 48 and plain,
        }
    )


def _is_plain(rows: Rows) -> bool:
    """A 3×3 convolution, say, that moves by one pixel."""
    return rows.stride == 1 and 1 < rows.kernel < 5


def _widest_of_two(rows: Rows) -> int:
    """Up to how many channels packs of two pixels on both sides gain on tiles."""
    if rows.stride > 1:
        return 16 if rows.stride == 2 and rows.kernel > 1 else 0
    return 24 if rows.kernel == 1 else 32 if rows.kernel >= 5 else 8
