"""The digest of a role: cheap, without opening a single column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from qpipe.data.files import file_state, is_missing, unreadable
from qpipe.data.functions import function_file
from qpipe.data.npz import check_stored
from qpipe.errors import DataError
from qpipe.records import codec
from qpipe.records.data import DataSpec, Preprocess, RoleName, RoleSpec, Seal
from qpipe.store.seals import seal


@dataclass(frozen=True, slots=True, kw_only=True)
class _Identity:
    """All that decides which numbers reach the model from one role."""

    source: str
    samples: int | None
    seed: int | None
    drawn_by: str | None
    """The column whose groups are drawn whole."""
    inputs: tuple[tuple[str, str], ...]
    preprocess: tuple[Preprocess, ...]
    trim: str | None
    batch: int
    without: str | None
    """Digest of the rows and group column that are dropped (`overlap: drop-from-search`)."""


def role_digest(data: DataSpec, role: RoleName) -> str:
    """SHA-256 over the file's bytes (or the function's source and name), sampling, mapping, preprocessing and trim.

    The role's own name, label, group and slices are no part of it: they choose columns of the same rows. Where rows are
    sampled, the group is: its groups are drawn whole.

    Raises:
        DataError: no such role; its file is missing, or was changed since the role was sealed.
        ConfigError: its function's module is missing.
    """
    spec = _require_role(data, role)
    dropped = role == "search" and data.overlap == "drop-from-search" and data.role("gate") is not None
    return codec.digest(
        _Identity(
            source=_source(spec),
            samples=spec.samples,
            seed=spec.seed if spec.samples is not None else None,
            drawn_by=spec.group if spec.samples is not None else None,
            inputs=tuple(sorted(data.inputs)),
            preprocess=tuple(sorted(data.preprocess, key=lambda step: step.column)),
            trim=data.trim,
            batch=data.batch,
            without=_dropped(data) if dropped else None,
        )
    )


def outcome_digest(data: DataSpec, role: RoleName) -> str:
    """The rows of a role, which of their columns are label, group and slices, and which output is judged.

    Raises:
        DataError: as `role_digest`.
    """
    spec = _require_role(data, role)
    judged = () if data.output is None else (("output", data.output),)
    return codec.digest((role_digest(data, role), data.label or "", spec.group or "", *sorted(spec.slices), *judged))


def rows_digest(data: DataSpec, role: RoleName) -> str:
    """The rows that a role draws from, however they are sampled, fed or judged: what looks wear out.

    Raises:
        DataError: as `role_digest`, but for a sealed file nothing is looked at.
    """
    spec = _require_role(data, role)
    return codec.digest(("npz", spec.seal.sha256) if spec.seal is not None else (_source(spec),))


def sealed(data: DataSpec) -> DataSpec:
    """The same data with each `.npz` file's digest beside its path: whoever gets the record need not read it for that.

    Raises:
        DataError: files are missing (names all of them), or one is damaged.
    """
    _require_all(data)
    seals = {path: _seal(path) for path in dict.fromkeys(role.npz for role in data.roles) if path is not None}
    for path, seal_of in seals.items():
        _check_once(path.resolve(), seal_of)
    return replace(data, roles=tuple(_with_seal(role, seals) for role in data.roles))


def unsealed(data: DataSpec) -> DataSpec:
    """The same data for whoever asks what the files hold now, whatever they held when a run was planned."""
    return replace(data, roles=tuple(replace(role, seal=None) for role in data.roles))


def _require_all(data: DataSpec) -> None:
    missing = list(dict.fromkeys(role.npz for role in data.roles if role.npz is not None and is_missing(role.npz)))
    if len(missing) > 1:
        listed = " and ".join(filter(None, (", ".join(map(str, missing[:-1])), str(missing[-1]))))
        raise DataError(f"{listed}: no such data files", hint="paths are relative to the pipeline file")


@lru_cache(maxsize=4096)
def _check_once(path: Path, held: Seal) -> None:  # noqa: ARG001  (the seal names the content)
    check_stored(path)


def _with_seal(role: RoleSpec, seals: Mapping[Path, Seal]) -> RoleSpec:
    return role if role.npz is None else replace(role, seal=seals[role.npz])


def confirm(role: RoleSpec) -> None:
    """After rows were read: they are of the file that the role was sealed with, so that its digest names them.

    Raises:
        DataError: the file is gone, or holds something else now.
    """
    if role.npz is not None and role.seal is not None:
        _seal(role.npz, role.seal)


def _dropped(data: DataSpec) -> str:
    groups = [role.group or "" for role in (data.role("search"), data.role("gate")) if role is not None]
    return codec.digest((role_digest(data, "gate"), *groups))


def _require_role(data: DataSpec, role: RoleName) -> RoleSpec:
    spec = data.role(role)
    if spec is None:
        raise DataError(f"the pipeline has no {role} data", hint=f"add data.{role}: {{npz: FILE}}")
    return spec


def _source(spec: RoleSpec) -> str:
    if spec.npz is not None:
        return f"npz:{_seal(spec.npz, spec.seal).sha256}"
    if spec.fn is not None:
        return f"fn:{spec.fn}:{_seal(function_file(spec.fn, spec.fn_path)).sha256}"
    raise DataError(f"{spec.role} data names neither npz nor fn", hint=f"add data.{spec.role}: {{npz: FILE}}")


def _seal(path: Path, known: Seal | None = None) -> Seal:
    """What a file holds now; a `known` one must hold the same still, and is read only where it may not."""
    file_state(path)
    try:
        found = seal(path, known)
    except OSError as error:
        raise unreadable(path, error) from error
    if known is not None and known.sha256 != found.sha256:
        raise DataError(f"{path} was changed after the run was planned", hint="run it again: it is planned anew")
    return found
