"""How the converted file's inputs and outputs are permuted, found by running both graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Permutation = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One input or output: file array = model array.transpose(permutation), at `position` in the file."""

    name: str
    position: int
    permutation: Permutation


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The border between the model's names and layouts and the file's, as stored beside the `.tflite`."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    any_batch: bool
    """False where the file takes one row at a time: the session then runs row by row."""


def permutations_of(shape: Sequence[int | None], wanted: Sequence[int]) -> Iterator[Permutation]:
    """Identity and channels-last, where they lead from the model's shape to the file's (axis 0 is free)."""
    rank = len(shape)
    last = (0, *range(2, rank), 1) if rank > 2 else ()
    for order in dict.fromkeys((tuple(range(rank)), last)):
        if len(order) == rank == len(wanted) and all(shape[a] in (wanted[i], None) for i, a in enumerate(order) if i):
            yield order


def input_layouts(
    names: Sequence[str],
    shapes: Sequence[Sequence[int | None]],
    file_names: Sequence[str],
    file_shapes: Sequence[Sequence[int]],
) -> Iterator[tuple[Port, ...]]:
    """Every way to feed the model's inputs to the file: matched by name where names survive, else by order."""
    plain = [_plain(name) for name in file_names]
    positions = [plain.index(_plain(n)) if _plain(n) in plain else i for i, n in enumerate(names)]
    choices = [list(permutations_of(shape, file_shapes[at])) for shape, at in zip(shapes, positions, strict=True)]
    for orders in product(*choices):
        yield tuple(
            Port(name=name, position=at, permutation=order)
            for name, at, order in zip(names, positions, orders, strict=True)
        )


def output_layout(reference: Mapping[str, Array], outputs: Sequence[Array]) -> tuple[Port, ...] | None:
    """Where each model output is among the file's outputs and in which order, or None where one cannot be found."""
    found: list[Port] = []
    for name, wanted in reference.items():
        port = next((port for port in _output_ports(name, wanted, outputs, {p.position for p in found})), None)
        if port is None:
            return None
        found.append(port)
    return tuple(found)


def _output_ports(name: str, wanted: Array, outputs: Sequence[Array], taken: set[int]) -> Iterator[Port]:
    for position, array in enumerate(outputs):
        if position in taken:
            continue
        for order in permutations_of(wanted.shape, array.shape):
            if close(wanted.transpose(order), array):
                yield Port(name=name, position=position, permutation=order)


def close(wanted: Array, found: Array, relative: float = 1e-3) -> bool:
    """Equal up to `relative` × the largest magnitude: another order of float sums, not another model."""
    if wanted.shape != found.shape:
        return False
    if wanted.size == 0:
        return True
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    return bool(np.isfinite(b).all() and np.max(np.abs(a - b)) <= relative * np.max(np.abs(a)) + 1e-6)


def to_file(port: Port, array: Array) -> Array:
    """The model's array as the file wants it."""
    return np.ascontiguousarray(array.transpose(port.permutation))


def from_file(port: Port, array: Array) -> Array:
    """The file's array as the model has it."""
    back = tuple(port.permutation.index(axis) for axis in range(len(port.permutation)))
    return np.ascontiguousarray(array.transpose(back))


def _plain(name: str) -> str:
    kept = "".join(char if char.isalnum() else "_" for char in name.split(":", maxsplit=1)[0])
    return kept.strip("_").lower()
