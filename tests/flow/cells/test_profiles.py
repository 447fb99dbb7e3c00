"""Which engines are timed."""

import threading
from dataclasses import replace
from types import SimpleNamespace

from small_pipeline import write_small_pipeline

from qpipe.execute.children.watch import Silence
from qpipe.execute.jobs import CellJob, CellOutcome
from qpipe.execute.work.cell import run_cell
from qpipe.execute.work.profiling import Profiled
from qpipe.flow.cells.jobs import Worked
from qpipe.flow.cells.profiles import measure
from qpipe.flow.options import RunOptions
from qpipe.flow.workplace import open_workplace
from qpipe.records.codec import decode, encode
from qpipe.records.evidence import NotMeasured
from qpipe.testing.progress import Silent

TIMED = NotMeasured(reason="a stand-in")


def test_recipes_of_the_same_stages_and_copies_of_a_model_are_timed_once(tmp_path):
    """Their cells have one key and one evidence: each was timed, and the last one's times stood."""
    same = [{"name": name, "stages": ["fp16"]} for name in ("half", "twin")]
    path = write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=same)
    place = open_workplace(path, RunOptions(store=str(tmp_path / "store")))
    job = encode(CellJob(store=place.store.location, cell=place.cells[0]))
    outcome = decode(CellOutcome, run_cell(job, Silent()))
    copies = [replace(cell, model=replace(cell.model, name="copy")) for cell in place.cells]
    worked = [Worked(cell=cell, status="ok", outcome=outcome) for cell in (*place.cells, *copies)]
    ordered = []

    def profile(orders, **_):
        ordered.extend(orders)
        return [{one.label: Profiled(profile=TIMED) for one in order.everyone} for order in orders]

    found = measure(replace(place, executor=SimpleNamespace(profile=profile)), worked, Silence(), threading.Event())
    assert [[one.label for one in order.everyone] for order in ordered] == [
        ["small/none/cpu-local", "small/twin/cpu-local"]
    ]
    assert {cell.key for cell in place.cells} == found.keys()
