"""Outputs of sessions over all rows of one role: each batch is read and preprocessed once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import EngineError
from qpipe.plugins.backend import Progress, Session, Tensors
from qpipe.records.tensors import Signature, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Outputs of one session for all rows, in order."""

    tensors: Mapping[str, NDArray[np.generic]]
    """By name in the signature's order, rows first. Where batches were trimmed to different lengths, shorter ones are
    filled with zeros at the end of each free axis."""
    rows: int
    seconds: float
    """Spent in the session alone."""


def judged_first(outputs: Outputs, name: str | None) -> Outputs:
    """The same outputs with the one that is judged in front; None leaves the model's order."""
    return outputs if name is None else replace(outputs, tensors={name: outputs.tensors[name], **outputs.tensors})


def run_rows(session: Session, batches: Iterable[Tensors], progress: Progress | None = None) -> Outputs:
    """Outputs of one session over all batches.

    Raises:
        EngineError: the session gives other names, shapes or dtypes than its signature says, or there was no batch.
    """
    return run_all({"": session}, batches, progress)[""]


def run_all(
    sessions: Mapping[str, Session], batches: Iterable[Tensors], progress: Progress | None = None
) -> dict[str, Outputs]:
    """Outputs of several sessions from one pass over the batches.

    A session with a fixed batch size gets chunks of that size; the last one is filled up by repeating its last row,
    and the outputs of the filling are dropped.

    Raises:
        EngineError: as `run_rows`; the message names the session.
    """
    parts: dict[str, list[dict[str, NDArray[np.generic]]]] = {name: [] for name in sessions}
    seconds = dict.fromkeys(sessions, 0.0)
    rows = 0
    for batch in batches:
        count = len(next(iter(batch.values())))
        for name, session in sessions.items():
            begin = time.perf_counter()
            parts[name].append(_run_batch(session, batch, count, name))
            seconds[name] += time.perf_counter() - begin
        rows += count
        if progress is not None:
            progress.advance()
    if not rows:
        raise EngineError("there are no rows to run", hint="the role's data is empty")
    return {
        name: Outputs(tensors=_joined(session.signature, parts[name], name), rows=rows, seconds=seconds[name])
        for name, session in sessions.items()
    }


def fixed_batch(signature: Signature) -> int | None:
    """The batch size that a model is fixed to, or None where its first axis is free."""
    sizes = [spec.shape[0] for spec in signature.inputs if spec.shape and isinstance(spec.shape[0], int)]
    return sizes[0] if sizes else None


def _run_batch(session: Session, batch: Tensors, rows: int, name: str) -> dict[str, NDArray[np.generic]]:
    """One batch in one or several runs, with shapes and dtypes checked."""
    size = fixed_batch(session.signature) or rows
    chunks = [_checked(session, chunk, name) for chunk in _chunks(batch, rows, size)]
    if len(chunks) == 1 and size == rows:
        return chunks[0]
    return {key: np.concatenate([chunk[key] for chunk in chunks])[:rows] for key in chunks[0]}


def _chunks(batch: Tensors, rows: int, size: int) -> Iterator[Tensors]:
    for begin in range(0, rows, size):
        # Past the end the last row is repeated: a row that the model can take anyway.
        index = np.minimum(np.arange(begin, begin + size), rows - 1)
        yield batch if size == rows else {key: tensor[index] for key, tensor in batch.items()}


def _checked(session: Session, batch: Tensors, name: str) -> dict[str, NDArray[np.generic]]:
    found = session.run(batch)
    rows = len(next(iter(batch.values())))
    who = f"session '{name}'" if name else "the session"
    for spec in session.signature.outputs:
        if spec.name not in found:
            raise EngineError(f"{who} gives {', '.join(sorted(found)) or 'nothing'}, not '{spec.name}'")
        if not _fits(found[spec.name], spec, rows):
            shape = list(found[spec.name].shape)
            raise EngineError(f"{who} gives '{spec.name}' as {shape} for {rows} rows where the model has {spec}")
        if not _is_of(found[spec.name].dtype, spec.dtype):
            raise EngineError(
                f"{who} gives '{spec.name}' as {found[spec.name].dtype} where the model has {spec}",
                hint=f"its backend converts outputs to {spec.dtype}, the dtype of the user's model",
            )
    return {spec.name: found[spec.name] for spec in session.signature.outputs}


def _is_of(dtype: np.dtype[np.generic], name: str) -> bool:
    """Whether it is the dtype of a specification; text may come as objects."""
    return dtype.kind in "OUS" if name == "str" else dtype == np.dtype(name)


def _fits(tensor: NDArray[np.generic], spec: TensorSpec, rows: int) -> bool:
    """Whether a tensor has the rank, the fixed sizes and one entry per row; the rank may be unknown."""
    if not tensor.ndim or tensor.shape[0] != rows:
        return False
    if not spec.shape:
        return True
    dims = zip(tensor.shape[1:], spec.shape[1:], strict=False)
    return tensor.ndim == len(spec.shape) and all(not isinstance(size, int) or size == found for found, size in dims)


def _joined(
    signature: Signature, parts: list[dict[str, NDArray[np.generic]]], name: str
) -> dict[str, NDArray[np.generic]]:
    return {spec.name: _concatenate([part[spec.name] for part in parts], spec, name) for spec in signature.outputs}


def _concatenate(parts: list[NDArray[np.generic]], spec: TensorSpec, name: str) -> NDArray[np.generic]:
    if len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    if len({part.ndim for part in parts}) > 1:
        raise EngineError(f"session '{name}' gives '{spec.name}' with different ranks in different batches")
    longest = np.max([part.shape[1:] for part in parts], axis=0)
    return np.concatenate(
        [
            np.pad(part, [(0, 0), *((0, int(most) - size) for size, most in zip(part.shape[1:], longest, strict=True))])
            for part in parts
        ]
    )
