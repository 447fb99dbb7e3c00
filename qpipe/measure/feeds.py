"""What sessions are fed while they are timed, and the digest of what they answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from qpipe.errors import EngineError
from qpipe.measure.rows import fixed_batch
from qpipe.plugins.backend import Session, Tensors
from qpipe.records.tensors import Signature

Feeds = Mapping[int, tuple[Tensors, ...]]
"""Inputs, or a session's outputs for them, per batch size."""
FEEDS = 4
"""Different inputs per batch size: a session that remembers its last answer is found out."""


def make_feeds(batches: Iterable[Tensors], sizes: Iterable[int], signature: Signature, count: int = FEEDS) -> Feeds:
    """Inputs for timing: the first rows of the role, `count` different batches of each size.

    A model with a fixed batch size is fed that one size alone. Where there are too few rows they are repeated.
    Only as many batches are read as are needed.

    Raises:
        EngineError: there are no rows.
    """
    fixed = fixed_batch(signature)
    wanted = (fixed,) if fixed is not None else tuple(dict.fromkeys(sizes))
    rows = _first_rows(batches, count * max(wanted))
    have = len(next(iter(rows.values())))
    feeds = {}
    for size in wanted:
        starts = [number * size for number in range(count)]
        index = [np.arange(start, start + size) % have for start in starts]
        feeds[size] = tuple({name: tensor[chosen] for name, tensor in rows.items()} for chosen in index)
    return feeds


def _first_rows(batches: Iterable[Tensors], need: int) -> Tensors:
    """At least `need` rows where there are as many; rows of another length than the first batch's are left out."""
    parts: list[Tensors] = []
    for batch in batches:
        if parts and any(batch[name].shape[1:] != tensor.shape[1:] for name, tensor in parts[0].items()):
            continue
        parts.append(batch)
        if sum(len(next(iter(part.values()))) for part in parts) >= need:
            break
    if not parts:
        raise EngineError("there are no rows to time with", hint="the role's data is empty")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def digest_outputs(session: Session, feeds: Feeds) -> str:
    """SHA-256 of a session's outputs for all feeds; the timed run must give the same."""
    return digest_of(answer_feeds(session, feeds))


def answer_feeds(session: Session, feeds: Feeds) -> Feeds:
    """A session's outputs for all feeds, by batch size."""
    return {size: tuple(session.run(inputs) for inputs in feeds[size]) for size in feeds}


def digest_of(outputs: Feeds) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of batch sizes."""
    found = hashlib.sha256()
    for size in sorted(outputs):
        for tensors in outputs[size]:
            for name in sorted(tensors):
                tensor = np.ascontiguousarray(tensors[name])
                found.update(f"{size} {name} {tensor.dtype.str} {tensor.shape}".encode())
                found.update(tensor.tobytes())
    return found.hexdigest()
