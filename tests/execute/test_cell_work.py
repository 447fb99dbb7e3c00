"""What the children of a cell do, in this process: built and judged, timed beside the float engine, verified."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import pytest
from small_pipeline import write_small_pipeline

from qpipe.execute.jobs import CellJob, CellOutcome, Contestant, TimingJob
from qpipe.execute.work.cell import run_cell
from qpipe.execute.work.explaining import load_explanation, run_explanation
from qpipe.execute.work.pairs import load_pair
from qpipe.execute.work.timed import run_timing
from qpipe.flow.options import RunOptions
from qpipe.flow.workplace import open_workplace
from qpipe.measure.samples import load_samples
from qpipe.metrics import builtin_metrics
from qpipe.records.cell import Cell, Timing
from qpipe.records.codec import decode, encode
from qpipe.store import Store
from qpipe.testing.fake import FakeBackend, fake_site
from qpipe.testing.progress import Silent

METRICS = {metric.name: metric for metric in builtin_metrics()}
STEPS = ("float", "prepared", "float nodes", "float outputs", "quantized", "engine")
TIMING = Timing(processes=1, rounds=4, blocks=2, min_seconds=0.0, warmup=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder with the small network, its rows and a store."""

    folder: object
    store: Store

    def cells(self, *, profile: bool = True, batch_sizes: tuple[int, ...] = (1,), **options: object) -> dict[str, Cell]:
        """Cells of one board of the fake backend by recipe; options are what it is told to do."""
        board = {"name": "board", "backend": "fake", "batch_sizes": list(batch_sizes), "options": options}
        (self.folder / "targets").mkdir(exist_ok=True)
        (self.folder / "targets" / "board.yaml").write_text(encode(board))
        path = write_small_pipeline(self.folder, targets=["board"], recipes=["int8"])
        workplace = open_workplace(path, RunOptions(offline=True, store=str(self.store.root), profile=profile))
        return {cell.recipe.name: replace(cell, timing=TIMING) for cell in workplace.cells}

    def work(self, cell: Cell, fresh: str = "") -> CellOutcome:
        """The cell's job, as its child does it."""
        job = CellJob(store=str(self.store.root), cell=cell, fresh=fresh)
        return decode(CellOutcome, run_cell(encode(job), Silent()))

    def evaluated(self, outcome: CellOutcome):
        """What is known of the engine's outputs."""
        return load_pair(self.store.folder(outcome.evaluation))

    def timed(self, cells: dict[str, Cell], worked: dict[str, CellOutcome] | None = None):
        """Samples of one process that times all cells, as its child takes them."""
        worked = worked or {recipe: self.work(cell) for recipe, cell in cells.items()}
        job = TimingJob(
            store=str(self.store.root),
            target=cells["none"].target,
            contestants=tuple(
                Contestant(label=recipe, engine=found.engine, evaluation=found.evaluation)
                for recipe, found in worked.items()
            ),
            data=cells["none"].data,
            signature=cells["none"].model.signature,
            timing=TIMING,
            number=0,
            samples=str(self.folder / "0.npz"),
        )
        assert run_timing(encode(job), Silent()) == job.samples
        return load_samples(self.folder / "0.npz")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(fake_site()))
    monkeypatch.chdir(tmp_path)
    return Place(folder=tmp_path, store=Store(tmp_path / "store"))


def test_timed_outputs_are_the_evaluated_ones_also_after_other_batch_sizes(place):
    for sizes in ((1,), (4, 1)):
        assert place.timed(place.cells(batch_sizes=sizes)).outputs_match.all(), sizes


def test_another_protocol_evaluates_nothing_again(place):
    cell = place.cells()["int8"]
    again = place.cells(profile=False)["int8"]
    assert cell.measure.digest != again.measure.digest
    assert place.work(cell).evaluation == place.work(again).evaluation
    assert len(list((place.store.root / "keys" / "evaluation").iterdir())) == 1


def test_the_time_to_load_an_engine_is_not_that_of_the_runtime(place, monkeypatch):
    opened, open_engine = [], FakeBackend.open

    def slow_at_first(backend, engine, target):
        opened.append(engine)
        time.sleep(0.5 if len(opened) == 1 else 0)
        return open_engine(backend, engine, target)

    cells = place.cells()
    found = {recipe: place.work(cell) for recipe, cell in cells.items()}
    monkeypatch.setattr(FakeBackend, "open", slow_at_first)
    assert 0 < place.timed(cells, found).load_ms.max() < 500


def explained(place, cell):
    """What `qpipe explain` is told of a cell."""
    job = CellJob(store=str(place.store.root), cell=cell)
    return load_explanation(place.store.folder(run_explanation(encode(job), Silent())))


def test_an_engine_whose_metric_is_no_number_is_explained(place, monkeypatch):
    never = replace(METRICS["accuracy"], aggregate=lambda _: float("nan"))
    monkeypatch.setattr("qpipe.execute.work.explaining.find_metric", lambda *_: never)
    found = explained(place, place.cells()["int8"])
    assert {step.name: step.metric for step in found.steps} == dict.fromkeys(STEPS)


def test_an_explanation_has_the_engine_beside_the_float_model_on_the_same_rows(place):
    """The fake engine runs the float graph and turns each second answer round."""
    found = explained(place, place.cells(flip=0.5)["int8"])
    steps = {step.name: step for step in found.steps}
    assert tuple(steps) == STEPS
    assert (found.rows, found.role, found.metric) == (64, "gate", "accuracy")
    assert steps["float"].sqnr_db is None
    assert steps["prepared"].sqnr_db > steps["quantized"].sqnr_db > 20 > steps["engine"].sqnr_db
    assert steps["prepared"].metric == steps["float"].metric != steps["engine"].metric
    assert found.layers
    assert {layer.kernel for layer in found.layers} == {""}
