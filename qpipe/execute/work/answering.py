"""What one engine answers to the rows that judge it: in batches as it is served where that matters."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from qpipe.data import open_role
from qpipe.execute.work.outputs import are_small, kept_outputs, outputs_key
from qpipe.execute.work.passes import count_batches, light_rows, pass_batches, pass_name, real_batches
from qpipe.execute.work.reference import reference_outputs
from qpipe.measure.feeds import answer_feeds, digest_of, make_feeds
from qpipe.measure.neighbours import find_disagreement
from qpipe.measure.reference import reference_computation
from qpipe.measure.rows import Outputs, judged_first, run_rows
from qpipe.planning.sources import source_digest
from qpipe.plugins.backend import Remarking
from qpipe.records.cell import Cell
from qpipe.records.codec import digest
from qpipe.records.data import DataSpec, RoleName
from qpipe.records.remark import Remark

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpipe.data import Role
    from qpipe.execute.work.bench import Bench
    from qpipe.plugins.backend import Session
    from qpipe.records.engine import Engine, Kind


FEW = 128
"""Rows of a float engine under an emulator: floats are computed in software there, up to twenty times slower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Outputs of one engine over the rows of a role, and what there is to say of them."""

    role: Role
    """The rows that were run: of an emulator perhaps a sample."""
    outputs: Outputs
    """The output that is judged comes first."""
    batch: int | None
    """Rows at once: the target's first batch size where a row's answer depends on the rows beside it; else None, any
    number gives the same."""
    kind: Kind
    sampled: str
    """Digest of the answers to the first rows in the target's batch sizes; the timed run must give the same."""
    computes: str
    """The name of what the session computes; empty where it does not say."""
    remarks: tuple[Remark, ...]


def collect_answers(bench: Bench, engine: Engine, whole: Role) -> Answers:
    """Run the engine over the rows, once."""
    session = bench.backend.open(engine, bench.cell.target)
    try:
        role = emulated_rows(bench.cell, whole) if session.kind == "emulated" else whole
        judged = bench.cell.data.output
        outputs = judged_first(run_once(bench, session, role), judged)
        said = session.remarks if isinstance(session, Remarking) else ()  # of these rows, before others are run
        feeds = make_feeds(real_batches(whole), bench.cell.target.batch_sizes, bench.cell.model.signature)
        fed = answer_feeds(session, feeds)
        size: int | None = None
        beside: tuple[Remark, ...] = ()
        if role.rows < whole.rows:
            said = (*said, f"ran {role.rows:,} of {whole.rows:,} rows: {_why_fewer(bench.cell)}")
        elif levels := find_disagreement(outputs, fed, _rows_in_order(role)):
            size = next(iter(fed))
            beside = (_depends_on_neighbours(levels, role, size),)
            outputs = judged_first(run_once(bench, session, role, size), judged)
        return Answers(
            role=role,
            outputs=outputs,
            batch=size,
            kind=session.kind,
            sampled=digest_of(fed),
            computes=str(getattr(session, "computes", "")),
            remarks=(*beside, *(Remark(kind="device", subject=bench.cell.target.name, message=line) for line in said)),
        )
    finally:
        session.close()


def run_once(bench: Bench, session: Session, role: Role, size: int | None = None) -> Outputs:
    """Outputs over all rows, `size` at once (None: as many as stay light); what a digest names is not computed twice.

    A session that computes exactly what another one does (the same bytes, runtime and settings) shares its outputs,
    unless a fresh run is asked for: the float engine of ONNX Runtime on the CPU those of the reference runner, and two
    recipes that come to the same graph each other's.
    """
    model = bench.cell.model
    computes = getattr(session, "computes", "")
    bench.progress.step("evaluate", total=count_batches(role, size))

    def compute() -> Outputs:
        return run_rows(session, pass_batches(role, size), bench.progress)

    if not computes or bench.job.fresh:
        return compute()
    if computes == reference_computation(model.file):
        return reference_outputs(bench.store, model, role, bench.progress, size)
    if not are_small(session.signature, role.rows):
        return compute()
    device = next(item.value for item in bench.cell.measure.ingredients if item.name == "device")
    parts = (
        computes,
        device,
        digest(session.signature),
        role.digest,
        pass_name(size),
        source_digest("data", "measure"),
    )
    return kept_outputs(bench.store, "outputs", outputs_key(*parts), compute)


def _rows_in_order(role: Role) -> int:
    """How many of the first rows are fed to a session in order: rows of another length are left out there."""
    return role.rows if role.data.trim is None else role.batch_size


def _depends_on_neighbours(levels: Mapping[int, float], role: Role, served: int) -> Remark:
    found = ", ".join(f"{_distance(level)} at {size}" for size, level in levels.items())
    message = (
        f"the answer to a row depends on the rows beside it ({found} against {light_rows(role)} at once):"
        f" judged at {served}, the target's first batch size"
    )
    return Remark(kind="neighbours", subject="batch", message=message)


def _distance(level: float) -> str:
    return "not finite in the same places" if level == -math.inf else f"SQNR {level:.1f} dB"


def emulated_rows(cell: Cell, whole: Role) -> Role:
    """The rows that an emulator runs: as many as the target's host says, else all, but few for a float engine.

    They are part of the rows that the role draws, whose digest the evaluation keeps: a sample is no other gate set.
    """
    wanted = cell.target.host.rows or (FEW if cell.recipe.is_reference else whole.rows)
    if wanted >= whole.rows or whole.spec.group is not None:
        return whole
    return open_role(_some_rows(cell.data, cell.role, wanted), cell.role, cell.model.signature)


def _why_fewer(cell: Cell) -> str:
    if cell.target.host.rows is not None:
        return "so says the target's host"
    return "this is the float engine, emulated floats are slow, nobody gates it"


def _some_rows(data: DataSpec, name: RoleName, samples: int) -> DataSpec:
    """The data with a sample of one role; a larger sample of the same seed has the same rows and more."""
    roles = tuple(replace(one, samples=samples) if one.role == name else one for one in data.roles)
    return replace(data, roles=roles)
