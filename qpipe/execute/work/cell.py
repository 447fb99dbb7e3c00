"""One cell in its guarded child: prepare, build, open, evaluate. What the store already has is not made again."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from qpipe.data import open_role, role_digest
from qpipe.engines import read_engine, write_engine
from qpipe.execute.jobs import CellJob, CellOutcome
from qpipe.execute.work import learnt
from qpipe.execute.work.bench import Bench
from qpipe.execute.work.evaluating import evaluate_engine, evaluation_key
from qpipe.execute.work.pairs import write_unmeasured
from qpipe.execute.work.prepared import load_prepared, save_prepared
from qpipe.models import confirm_onnx
from qpipe.plugins.loader import load_plugins
from qpipe.records.codec import decode, encode
from qpipe.records.engine import Unavailable
from qpipe.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpipe.plugins.backend import Progress, Tensors
    from qpipe.records.engine import Prepared


def run_cell(request: str, progress: Progress) -> str:
    """Entry of the child: a `CellJob` as JSON → a `CellOutcome` as JSON."""
    job = decode(CellJob, request)
    registry = load_plugins()
    backend = registry.backend(job.cell.target.backend)
    bench = Bench(job=job, registry=registry, store=Store(job.store), backend=backend, progress=progress)
    engine = build_engine(bench)
    evaluation = judge_engine(bench, engine)
    return encode(CellOutcome(engine=engine.name, evaluation=evaluation.name))


def build_engine(bench: Bench) -> Path:
    """The object folder of the cell's engine."""
    cell = bench.cell

    def make(folder: Path) -> None:
        prepared = prepare_model(bench)
        bench.progress.step("build")
        built = learnt.build(bench, prepared, folder)
        confirm_onnx(cell.model.file)  # it may have been read, though prepared by an earlier run
        write_engine(
            folder,
            built,
            model=cell.model.name,
            model_digest=cell.model.digest,
            recipe=cell.recipe.name,
            target=cell.target.name,
            backend=cell.target.backend,
            signature=prepared.signature,
        )

    return bench.store.made_once("engine", cell.build.digest + bench.job.fresh, make)


def prepare_model(bench: Bench) -> Prepared:
    """The model after the recipe's stages."""
    from qpipe.prepare import prepare

    cell = bench.cell
    calibrating = cell.data.role("calibration") is not None

    def batches() -> Iterator[Tensors]:
        if calibrating:
            yield from open_role(cell.data, "calibration", cell.model.signature).batches()

    def make(folder: Path) -> None:
        made = prepare(
            cell.model,
            cell.recipe,
            cell.scheme,
            batches,
            folder / "stages",
            lambda key, fill: bench.store.made_once("statistics", key + bench.job.fresh, fill),
            bench.progress,
            calibration_digest=role_digest(cell.data, "calibration") if calibrating else "",
            rows=cell.data.batch,
            stages=tuple(bench.registry.stages.values()),
            code_of=bench.registry.code_of_stage,
        )
        confirm_onnx(cell.model.file)
        save_prepared(made, folder)

    made = bench.store.made_once("prepared", cell.prepare.digest + bench.job.fresh, make)
    return load_prepared(made, cell.model.file)


def judge_engine(bench: Bench, engine: Path) -> Path:
    """The object folder of the cell's evaluation; where the engine cannot run here, it says why."""
    state = bench.backend.check(bench.cell.target).run
    if isinstance(state, Unavailable):  # under no key: once a driver is installed, the same cell can be measured
        with TemporaryDirectory() as scratch:
            write_unmeasured(Path(scratch), state.reason, state.hint)
            return bench.store.folder(bench.store.put_folder(Path(scratch)))

    def make(folder: Path) -> None:
        judged = bench.cell.role == "gate"  # candidates of a search are many, and are told apart by their metric
        evaluate_engine(bench, read_engine(engine), folder, prepare_model(bench) if judged else None)

    return bench.store.made_once("evaluation", evaluation_key(bench.cell, engine.name) + bench.job.fresh, make)
