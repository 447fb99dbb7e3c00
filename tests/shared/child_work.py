"""What the children of a cell do, in the process of a test: one board of the fake backend, the small network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from small_pipeline import write_small_pipeline

from qpipe.execute.jobs import CellJob, CellOutcome, Contestant, EvaluationPair, TimingJob
from qpipe.execute.work.bench import Bench
from qpipe.execute.work.cell import run_cell
from qpipe.execute.work.explaining import load_explanation, run_explanation
from qpipe.execute.work.pairs import load_pair
from qpipe.execute.work.timed import run_timing
from qpipe.flow.options import RunOptions
from qpipe.flow.workplace import open_workplace
from qpipe.measure.samples import Samples, load_samples
from qpipe.plugins.loader import load_plugins
from qpipe.records.cell import Cell, Timing
from qpipe.records.codec import decode, encode
from qpipe.records.explanation import Explanation
from qpipe.store import Store
from qpipe.testing.progress import Silent

NOTHING: Mapping[str, object] = {}
TIMING = Timing(processes=1, rounds=4, blocks=2, min_seconds=0.0, warmup=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder with the small network, 64 rows of each role, and a store."""

    folder: Path

    @property
    def store(self) -> Store:
        """The store of all jobs."""
        return Store(self.folder / "store")

    def cells(
        self,
        *,
        profile: bool = True,
        target: Mapping[str, object] = NOTHING,
        rows: Mapping[str, Mapping[str, np.ndarray]] = NOTHING,
        pipeline: Mapping[str, object] = NOTHING,
        alter: Callable[[onnx.ModelProto], None] | None = None,
        **options: object,
    ) -> dict[str, Cell]:
        """Cells by recipe; `rows` are columns by role, `options` what the fake backend is told to do.

        `alter` changes the network before it is read.
        """
        (self.folder / "targets").mkdir(exist_ok=True)
        board = {"name": "board", "backend": "fake", "options": options, **target}
        (self.folder / "targets" / "board.yaml").write_text(encode(board))
        path = write_small_pipeline(self.folder, **{"targets": ["board"], "recipes": ["int8"], **pipeline})
        if alter is not None:
            model = onnx.load(self.folder / "small.onnx")
            alter(model)
            onnx.save(model, self.folder / "small.onnx")
        for role, columns in rows.items():
            np.savez(self.folder / f"{role}.npz", **columns)
        workplace = open_workplace(path, RunOptions(offline=True, store=str(self.store.root), profile=profile))
        return {cell.recipe.name: replace(cell, timing=TIMING) for cell in workplace.cells}

    def work(self, cell: Cell, *, fresh: str = "") -> CellOutcome:
        """The cell's job, as its child does it."""
        job = CellJob(store=str(self.store.root), cell=cell, fresh=fresh)
        return decode(CellOutcome, run_cell(encode(job), Silent()))

    def bench(self, cell: Cell, *, fresh: str = "") -> Bench:
        """What its child works with."""
        job, registry = CellJob(store=str(self.store.root), cell=cell, fresh=fresh), load_plugins()
        backend = registry.backend(cell.target.backend)
        return Bench(job=job, registry=registry, store=self.store, backend=backend, progress=Silent())

    def evaluated(self, cell: Cell, *, fresh: str = "") -> tuple[EvaluationPair, dict[str, np.ndarray]]:
        """What its engine's outputs are worth, and row by row."""
        folder = self.store.folder(self.work(cell, fresh=fresh).evaluation)
        with np.load(folder / "evaluation.npz") as stored:
            return load_pair(folder), dict(stored)

    def explained(self, cell: Cell) -> Explanation:
        """What `qpipe explain` is told of it."""
        job = CellJob(store=str(self.store.root), cell=cell)
        return load_explanation(self.store.folder(run_explanation(encode(job), Silent())))

    def timing_job(self, cells: Mapping[str, Cell], worked: Mapping[str, CellOutcome], number: int = 0) -> TimingJob:
        """One process that times engines by recipe."""
        cell = cells["none"]
        return TimingJob(
            store=str(self.store.root),
            target=cell.target,
            contestants=tuple(
                Contestant(label=recipe, engine=found.engine, evaluation=found.evaluation)
                for recipe, found in worked.items()
            ),
            data=cell.data,
            signature=cell.model.signature,
            timing=TIMING,
            number=number,
            samples=str(self.folder / f"{number}.npz"),
        )

    def timed(self, cells: Mapping[str, Cell], worked: Mapping[str, CellOutcome] | None = None) -> Samples:
        """Samples of one process that times all cells, as its child takes them."""
        job = self.timing_job(cells, worked or {recipe: self.work(cell) for recipe, cell in cells.items()})
        assert run_timing(encode(job), Silent()) == job.samples
        return load_samples(Path(job.samples))
