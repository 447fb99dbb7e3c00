"""Rows and groups that stand in two roles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qpipe.data.batches import check_finite
from qpipe.data.roles import Role
from qpipe.data.sources import Array

_BLOCK_ROWS = 1024
_BLOCK_BYTES = 1 << 20
"""Of one input: what is computed from it stays in the caches, and memory small (1,024 images took 0.6 GB)."""
_MIXER = np.uint64(0xFF51AFD7ED558CCD)
"""Multiplier of the 64-bit finalizer. Source: Appleby, MurmurHash3, fmix64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What search and gate have in common, counted in rows of search."""

    rows: int
    """Search rows whose model inputs stand in gate too, byte for byte."""
    groups: int
    """Groups that stand in both."""
    dropped: int
    """Search rows that are left out for it (`overlap: drop-from-search`)."""
    search_rows: int
    gate_rows: int
    examples: tuple[tuple[int, int], ...] = ()
    """(search row, gate row) of the first few."""
    group_examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What `find_shared` found; `rows` is a mask over the search rows."""

    overlap: Overlap
    rows: NDArray[np.bool_]


def find_shared(search: Role, gate: Role) -> Shared:
    """Which rows of search stand in gate: equal inputs, or a group of gate."""
    kept = kept_as(search, gate)
    ours, theirs = row_hashes(search, kept), row_hashes(gate, kept)
    order = np.argsort(theirs[:, 0], kind="stable")
    at = np.searchsorted(theirs[:, 0], ours[:, 0], sorter=order)
    partner = order[np.minimum(at, len(order) - 1)]
    same = (theirs[partner] == ours).all(axis=1)
    grouped, groups = _shared_groups(search, gate)
    first = np.flatnonzero(same)[:5]
    overlap = Overlap(
        rows=int(same.sum()),
        groups=len(groups),
        dropped=0,
        search_rows=search.rows,
        gate_rows=gate.rows,
        examples=tuple((int(search.selected[i]), int(gate.selected[partner[i]])) for i in first),
        group_examples=tuple(str(group) for group in groups[:5]),
    )
    return Shared(overlap=overlap, rows=same | grouped)


def kept_as(*roles: Role) -> dict[str, np.dtype[np.generic]]:
    """One dtype per preprocessed model input, that of the widest file: a pixel of 7 is 7 in uint8 and in float32."""
    return {
        entry.spec.name: np.result_type(
            *(part.column.dtype for role in roles for part in role.inputs if part.spec == entry.spec)
        )
        for entry in roles[0].inputs
        if entry.preprocess
    }


def row_hashes(role: Role, kept: Mapping[str, np.dtype[np.generic]] | None = None) -> NDArray[np.uint64]:
    """A 128-bit hash [rows, 2] of the raw input columns; positions that `trim` masks out do not count.

    `kept` are dtypes for inputs that are preprocessed; those that are not have the model's.

    Two multilinear hashes over mixed 64-bit words; a zero word adds nothing, so padding does not matter.
    Source: Lemire and Kaser, "Strongly universal string hashing is fast" (2014), section 3.
    """
    hashes = np.zeros((role.rows, 2), np.uint64)
    for start, block in _blocks(role, kept or kept_as(role)):
        size = len(next(iter(block.values())))
        for number, name in enumerate(sorted(block)):
            hashes[start : start + size] += _hash(block[name], number)
    return hashes


def _blocks(role: Role, kept: Mapping[str, np.dtype[np.generic]]) -> Iterator[tuple[int, dict[str, Array]]]:
    trim = role.data.trim
    by_input = {entry.column.name: entry for entry in role.inputs}
    names = tuple(dict.fromkeys((*by_input, *((trim,) if trim else ()))))
    start = 0
    for rows, block in role.source.blocks(names, role.selected, _rows_of_block(role)):
        mask = block[trim] != 0 if trim else None
        fed = {}
        for name, entry in by_input.items():
            check_finite(block[name], rows, name, role.where)
            array = block[name].astype(kept.get(entry.spec.name, np.dtype(entry.spec.dtype)), copy=False)
            if mask is not None and array.ndim > 1 and array.shape[1] == mask.shape[1]:
                array = array * mask.reshape(*mask.shape, *(1,) * (array.ndim - 2)).astype(array.dtype)
            fed[entry.spec.name] = array
        yield start, fed
        start += len(rows)


def _rows_of_block(role: Role) -> int:
    largest = max(entry.column.dtype.itemsize * math.prod(entry.column.shape) for entry in role.inputs)
    return max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // max(largest, 1)))


def _hash(array: Array, number: int) -> NDArray[np.uint64]:
    raw = np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)
    spare = -raw.shape[1] % 8
    if spare:
        raw = np.pad(raw, ((0, 0), (0, spare)))
    words = raw.view(np.uint64)
    mixed = (words ^ (words >> np.uint64(32))) * _MIXER
    mixed ^= mixed >> np.uint64(29)
    return np.stack([mixed @ weights for weights in _weights(number, words.shape[1])], axis=1)


@lru_cache(maxsize=16)
def _weights(number: int, words: int) -> NDArray[np.uint64]:
    """Odd weights of the two hashes of an input, [2, words]; the first words have the same in inputs of any length."""
    drawn = np.random.PCG64(number).random_raw(2 * words).reshape(-1, 2) | np.uint64(1)
    return np.ascontiguousarray(drawn.T)


def _shared_groups(search: Role, gate: Role) -> tuple[NDArray[np.bool_], Array]:
    theirs = gate.spec.group
    ours = search.spec.group or theirs
    if ours is None or theirs is None or ours not in search.source.columns:
        return np.zeros(search.rows, np.bool_), np.empty(0, np.str_)
    searched, gated = search.column(ours).astype(str), gate.column(theirs).astype(str)
    shared = np.intersect1d(searched, gated)
    return np.isin(searched, shared), shared
