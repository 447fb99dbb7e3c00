"""Evidence of finished cells: one immutable folder each, from which gates decide today and again later."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from qpipe.engines import read_engine
from qpipe.execute.work.pairs import load_pair
from qpipe.flow.cells.ingredients import remember_slot
from qpipe.flow.cells.jobs import Worked, baseline_of
from qpipe.flow.cells.objects import CellObjects, remember_cell
from qpipe.measure.samples import FILE as SAMPLES
from qpipe.measure.samples import save_samples
from qpipe.records.codec import decode, encode
from qpipe.records.evidence import Evaluation, Evidence, NotMeasured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qpipe.execute.work.profiling import Profiled
    from qpipe.store import Store

FILE = "evidence.json"
OUTCOMES = "evaluation.npz"


def assemble(worked: Sequence[Worked], profiled: Mapping[str, Profiled], store: Store) -> dict[str, Evidence]:
    """Evidence by cell key, for every cell that has an engine; what was complete before is read back."""
    found: dict[str, Evidence] = {}
    for one in worked:
        if one.outcome is None:
            continue
        digest = one.evidence or _store(one, baseline_of(one, worked), profiled.get(one.cell.key), store)
        found[one.cell.key] = read_evidence(store, digest)
    return found


def read_evidence(store: Store, digest: str) -> Evidence:
    """The evidence that an object holds, named by that object's digest."""
    return replace(decode(Evidence, (store.folder(digest) / FILE).read_text()), digest=digest)


def _store(one: Worked, baseline: Worked, profiled: Profiled | None, store: Store) -> str:
    if one.outcome is None:
        raise ValueError(f"{one.cell.label} has no engine")
    evaluation = store.folder(one.outcome.evaluation)
    engine = read_engine(store.folder(one.outcome.engine))
    pair = load_pair(evaluation)
    float_engine = read_engine(store.folder(baseline.outcome.engine)) if baseline.outcome else None
    evidence = Evidence(
        digest="",
        model_digest=one.cell.model.digest,
        engine_digest=engine.digest,
        evaluation=pair.engine,
        reference=pair.reference,
        profile=profiled.profile if profiled else NotMeasured(reason="the run was interrupted"),
        engine_size_bytes=engine.size_bytes,
        baseline_size_bytes=float_engine.size_bytes if float_engine else 0,
        placement=engine.placement,
        facts=engine.facts,
        attribution=pair.attribution,
        remarks=pair.remarks,
    )
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / FILE).write_text(encode(evidence))
        if (evaluation / OUTCOMES).exists():
            shutil.copy(evaluation / OUTCOMES, folder / OUTCOMES)
        if profiled is not None and profiled.samples is not None:
            save_samples(folder / SAMPLES, profiled.samples)
        digest = store.put_folder(folder)
    objects = CellObjects(engine=one.outcome.engine, evaluation=one.outcome.evaluation, evidence=digest)
    if profiled is not None and not profiled.again and isinstance(pair.engine, Evaluation):
        remember_cell(store, one.cell.key, objects)
        remember_slot(store, one.cell, seconds=one.seconds, engine_bytes=engine.size_bytes)
    return digest
