"""Raw latencies of one or several processes, as columns; `profile.npz` holds exactly these arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import EngineError, StoreError

FILE = "profile.npz"
Clock = Literal["wall", "cpu"]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """One entry per timed run, in the order in which they ran.

    `engines` names the sessions; `load_ms` and `outputs_match` are [processes, engines].
    """

    engines: NDArray[np.str_]
    process: Ints
    block: Ints
    batch: Ints
    engine: Ints
    """Index into `engines`."""
    wall_ns: Ints
    cpu_ns: Ints
    """CPU time of the calling thread, or of the process where a target has several threads."""
    load_ms: Floats
    outputs_match: NDArray[np.bool_]
    """Whether the outputs sampled in the timed run had the digest that was expected."""

    @property
    def processes(self) -> int:
        """How many processes took these samples."""
        return len(self.load_ms)

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes, ascending."""
        return tuple(int(size) for size in np.unique(self.batch))

    def index(self, engine: str) -> int:
        """Where an engine stands in `engines`.

        Raises:
            EngineError: it was not timed.
        """
        found = np.flatnonzero(self.engines == engine)
        if not len(found):
            raise EngineError(f"'{engine}' was not timed; timed were {', '.join(map(str, self.engines))}")
        return int(found[0])

    def times_ms(self, engine: str, batch: int, process: int, clock: Clock = "wall") -> Floats:
        """All samples of one engine at one batch size in one process, in milliseconds and in order."""
        which = (self.engine == self.index(engine)) & (self.batch == batch) & (self.process == process)
        return np.asarray(self._clock(clock)[which] / 1e6, dtype=np.float64)

    def matrix_ms(self, engine: str, batch: int, clock: Clock = "wall") -> Floats:
        """Samples as [processes, rounds] in milliseconds, block after block.

        Processes that ran more rounds than the shortest give the first ones of each block.
        """
        which = (self.engine == self.index(engine)) & (self.batch == batch)
        times = self._clock(clock)[which] / 1e6
        process, block = self.process[which], self.block[which]
        cells = [
            [times[(process == one) & (block == part)] for part in np.unique(block)] for one in range(self.processes)
        ]
        shortest = min((len(cell) for row in cells for cell in row), default=0)
        return np.array([np.concatenate([cell[:shortest] for cell in row]) for row in cells], dtype=np.float64)

    def _clock(self, clock: Clock) -> Ints:
        return self.wall_ns if clock == "wall" else self.cpu_ns


def merge_samples(parts: Iterable[Samples]) -> Samples:
    """Samples of processes that ran one after the other, numbered in that order.

    Raises:
        EngineError: they timed different engines.
    """
    every = tuple(parts)
    if len({tuple(part.engines.tolist()) for part in every}) != 1:
        raise EngineError("processes of one profile must time the same engines in the same order")
    first = np.cumsum([0, *(part.processes for part in every)])
    return Samples(
        engines=every[0].engines,
        process=np.concatenate([part.process + start for part, start in zip(every, first, strict=False)]),
        block=np.concatenate([part.block for part in every]),
        batch=np.concatenate([part.batch for part in every]),
        engine=np.concatenate([part.engine for part in every]),
        wall_ns=np.concatenate([part.wall_ns for part in every]),
        cpu_ns=np.concatenate([part.cpu_ns for part in every]),
        load_ms=np.concatenate([part.load_ms for part in every]),
        outputs_match=np.concatenate([part.outputs_match for part in every]),
    )


def select_samples(samples: Samples, engines: Iterable[str]) -> Samples:
    """The samples of some engines alone: the evidence of a cell has its own and the float engine's."""
    names = tuple(engines)
    old = [samples.index(name) for name in names]
    keep = np.isin(samples.engine, old)
    new = np.zeros(len(samples.engines), dtype=np.int64)
    new[old] = np.arange(len(old))
    return Samples(
        engines=np.array(names, dtype=np.str_),
        process=samples.process[keep],
        block=samples.block[keep],
        batch=samples.batch[keep],
        engine=new[samples.engine[keep]],
        wall_ns=samples.wall_ns[keep],
        cpu_ns=samples.cpu_ns[keep],
        load_ms=samples.load_ms[:, old],
        outputs_match=samples.outputs_match[:, old],
    )


def save_samples(path: Path, samples: Samples) -> None:
    """Write the arrays under the names of the fields of `Samples`."""
    np.savez_compressed(path, **{field.name: getattr(samples, field.name) for field in fields(samples)})


def load_samples(path: Path) -> Samples:
    """Read what `save_samples` wrote.

    Raises:
        StoreError: the file is not one of ours.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Samples(**{field.name: stored[field.name] for field in fields(Samples)})
    except (OSError, ValueError, KeyError, BadZipFile) as problem:
        raise StoreError(f"{path} does not hold latency samples: {problem}") from problem
