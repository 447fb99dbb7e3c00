"""A cell whose float engine is missing is told so, and is not finished while another try may bring one."""

import threading

import pytest
from small_pipeline import write_small_pipeline

from qpipe.execute.children.watch import Silence
from qpipe.execute.jobs import CellJob, CellOutcome
from qpipe.execute.work.cell import run_cell
from qpipe.flow.cells.evidence import assemble
from qpipe.flow.cells.jobs import Worked
from qpipe.flow.cells.objects import is_done
from qpipe.flow.cells.profiles import measure
from qpipe.flow.cells.refusals import SPACE, Refused
from qpipe.flow.options import RunOptions
from qpipe.flow.workplace import open_workplace
from qpipe.records.codec import decode, encode
from qpipe.records.evidence import NotMeasured
from qpipe.testing.progress import Silent


@pytest.mark.parametrize("refused", [False, True], ids=["timed out", "refused for good"])
def test_a_cell_waits_for_its_float_engine_while_there_may_be_one(tmp_path, refused):
    path = write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=["int8"])
    place = open_workplace(path, RunOptions(store=str(tmp_path / "store")))
    float_cell, cell = sorted(place.cells, key=lambda one: not one.recipe.is_reference)
    outcome = decode(CellOutcome, run_cell(encode(CellJob(store=place.store.location, cell=cell)), Silent()))
    worked = (
        Worked(cell=float_cell, status="timeout", reason="stopped at its limit of 4 s"),
        Worked(cell=cell, status="ok", outcome=outcome),
    )
    if refused:
        place.store.remember(SPACE, float_cell.key, encode(Refused(reason="no Einsum", hint="", log_tail="")))
    profiled = measure(place, worked, Silence(), threading.Event())
    evidence = assemble(worked, profiled, place.store)[cell.key]
    assert evidence.profile == NotMeasured(
        reason="there is no float engine to compare with: stopped at its limit of 4 s"
    )
    assert evidence.size_ratio is None
    assert is_done(place.store, cell.key) is refused
