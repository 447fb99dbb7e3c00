"""Rows that judge an engine and are no evidence of their own: copies of each other, and rows that calibration saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qpipe.data import Copies, find_copies, merge_groups, open_role
from qpipe.execute.work.outputs import outputs_key
from qpipe.planning.sources import source_digest
from qpipe.records.codec import digest
from qpipe.records.remark import Remark

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from qpipe.data import Role
    from qpipe.execute.work.bench import Bench

SPACE = "copies"
FILE = "copies.npz"


def copies_of(bench: Bench, role: Role) -> Copies:
    """What the rows have in common with each other and with calibration; once per model and data, kept in the store."""
    cell = bench.cell
    calibrates = any(bench.registry.stage(stage.name).needs_calibration for stage in cell.recipe.stages)
    calibration = open_role(cell.data, "calibration", cell.model.signature) if calibrates else None
    seen = calibration.digest if calibration is not None else ""
    key = outputs_key(role.digest, seen, digest(cell.model.signature), source_digest("data"), bench.job.fresh)

    def make(folder: Path) -> None:
        found = find_copies(role, calibration)
        np.savez(folder / FILE, inputs=found.inputs, calibrated=np.asarray(found.calibrated))

    with np.load(bench.store.made_once(SPACE, key, make) / FILE, allow_pickle=False) as stored:
        return Copies(inputs=stored["inputs"], calibrated=int(stored["calibrated"]))


def groups_of(role: Role, copies: Copies | None) -> NDArray[np.generic] | None:
    """The rows' group: as the pipeline names it, else that of the rows with the same input; None where all differ.

    Named groups that share an input are one: their rows are no evidence of their own.
    """
    if role.spec.group is not None:
        named = role.column(role.spec.group)
        return merge_groups(named, copies.inputs) if copies is not None and copies.repeated else named
    return copies.inputs if copies is not None and copies.repeated else None


def copy_remarks(role: Role, copies: Copies, groups: NDArray[np.generic] | None) -> tuple[Remark, ...]:
    """What a run says of them; `groups` are those of `groups_of`."""
    said = []
    if copies.repeated and role.spec.group is None:
        said.append(
            f"{copies.repeated:,} of {role.rows:,} gate rows are copies of another, byte for byte in all inputs:"
            f" intervals count {copies.distinct:,} groups"
        )
    if copies.repeated and role.spec.group is not None and groups is not None:
        before, after = (len(np.unique(found)) for found in (role.column(role.spec.group), groups))
        if after < before:
            said.append(
                f"copies of gate rows, byte for byte in all inputs, stand in different groups of '{role.spec.group}':"
                f" intervals count {after:,} groups instead of {before:,}; without the copies all would count"
            )
    if copies.calibrated:
        said.append(
            f"{copies.calibrated:,} of {role.rows:,} gate rows stand in the calibration rows too, whose ranges fit them"
        )
    return tuple(Remark(kind="copies", subject="gate", message=message) for message in said)
