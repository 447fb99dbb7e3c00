"""Open a role, with search kept apart from gate."""

from __future__ import annotations

from dataclasses import replace

from qpipe.data.digests import role_digest
from qpipe.data.overlap import Overlap, find_shared
from qpipe.data.roles import Role, read_role
from qpipe.errors import DataError
from qpipe.records.data import DataSpec, RoleName
from qpipe.records.tensors import Signature


def open_role(data: DataSpec, role: RoleName, signature: Signature) -> Role:
    """The rows of a role, matched to the model's inputs; search without gate's rows where the pipeline drops them.

    Raises:
        DataError: a missing or damaged file, a missing column, a shape or dtype that is not the model's, unequal or
            0 rows, an empty slice, NaN in a label.
        ConfigError: a `module:function` that does not exist.
    """
    opened = read_role(data, role, signature, digest=role_digest(data, role))
    if role != "search" or data.overlap != "drop-from-search" or data.role("gate") is None:
        return opened
    gate = read_role(data, "gate", signature, digest="")
    kept = opened.selected[~find_shared(opened, gate).rows]
    if not len(kept):
        raise DataError(
            f"{opened.where}: all {opened.rows} rows stand in the gate data too, none is left",
            hint="give search rows of its own",
        )
    return replace(opened, selected=kept)


def check_overlap(data: DataSpec, signature: Signature) -> Overlap:
    """What search and gate share; with `overlap: drop-from-search` how many rows search loses.

    Reads the input columns of every role once, so that NaN is found before any work.

    Raises:
        DataError: rows or groups stand in both and the pipeline does not drop them; NaN or infinity in an input.
    """
    roles = {spec.role: read_role(data, spec.role, signature, digest="") for spec in data.roles}
    search, gate = roles.get("search"), roles.get("gate")
    for role in roles.values():
        if role.name == "calibration" or search is None or gate is None:  # finding overlap reads the other two
            role.check_values()
    if search is None or gate is None:
        return Overlap(rows=0, groups=0, dropped=0, search_rows=0, gate_rows=0)
    shared = find_shared(search, gate)
    count = int(shared.rows.sum())
    if count and data.overlap == "error":
        raise DataError(
            _describe(search, gate, shared.overlap),
            hint="take them out of the search data, or write data.overlap: drop-from-search",
        )
    return replace(shared.overlap, dropped=count)


def _describe(search: Role, gate: Role, overlap: Overlap) -> str:
    parts = []
    if overlap.rows:
        pairs = ", ".join(f"search row {ours} = gate row {theirs}" for ours, theirs in overlap.examples[:3])
        parts.append(f"{overlap.rows} of {overlap.search_rows} search rows stand in the gate data too ({pairs})")
    if overlap.groups:
        parts.append(f"{overlap.groups} groups stand in both ({', '.join(overlap.group_examples)})")
    return f"{search.source.place} and {gate.source.place}: {'; '.join(parts)}"
