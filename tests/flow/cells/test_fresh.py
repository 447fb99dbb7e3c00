"""A fresh run asks for everything anew, under one token."""

import threading
from dataclasses import replace
from types import SimpleNamespace

from small_pipeline import write_small_pipeline

from qpipe.data import role_digest
from qpipe.execute.children.watch import Silence
from qpipe.execute.jobs import CellJob, ReferenceJob
from qpipe.execute.work.reference import SPACE, reference_key
from qpipe.flow.cells.jobs import REFERENCE, work
from qpipe.flow.options import RunOptions
from qpipe.flow.workplace import open_workplace
from qpipe.records.codec import decode


def test_the_float_models_outputs_are_asked_for_again_and_only_then(tmp_path):
    path = write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=["int8"])
    asked = []
    recorder = SimpleNamespace(run=lambda jobs, **_: asked.append(jobs))
    place = replace(open_workplace(path, RunOptions(store=str(tmp_path / "store"))), executor=recorder)
    cell = place.cells[0]
    place.store.remember(SPACE, reference_key(cell.model.digest, role_digest(cell.data, "gate")), "{}")
    for fresh in (False, True):
        work(place, RunOptions(fresh=fresh), Silence(), threading.Event())
    assert not [job for job in asked[0] if job.entry == REFERENCE]
    (reference,) = [decode(ReferenceJob, job.request).fresh for job in asked[1] if job.entry == REFERENCE]
    tokens = {decode(CellJob, job.request).fresh for job in asked[1] if job.entry != REFERENCE}
    assert tokens == {reference} != {""}
