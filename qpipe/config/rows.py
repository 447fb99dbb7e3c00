"""The `data` section as a record."""

from __future__ import annotations

from pathlib import Path

from qpipe.config.document import KeyPath
from qpipe.config.paths import resolve_path
from qpipe.config.problems import Problem
from qpipe.config.text import DataText, PreprocessText, RoleText
from qpipe.errors import QpipeError
from qpipe.records.data import ROLES, DataSpec, Preprocess, RoleName, RoleSpec


def read_data(text: DataText, folder: Path, problems: list[Problem]) -> DataSpec:
    """Roles with absolute paths, mapping and preprocessing."""
    written: dict[RoleName, RoleText | None] = {
        "calibration": text.calibration,
        "search": text.search,
        "gate": text.gate,
    }
    roles = tuple(_role(name, role, folder, problems) for name in ROLES if (role := written[name]) is not None)
    return DataSpec(
        inputs=tuple(text.inputs.items()),
        label=text.label,
        output=text.output,
        preprocess=tuple(_preprocess(column, step) for column, step in text.preprocess.items()),
        roles=roles,
        trim=text.trim,
        batch=text.batch,
        overlap=text.overlap,
    )


def _role(name: RoleName, text: RoleText, folder: Path, problems: list[Problem]) -> RoleSpec:
    at: KeyPath = ("data", name)
    if (text.npz is None) == (text.fn is None):
        what = "neither npz nor fn" if text.npz is None else "both npz and fn"
        problems.append(Problem(at=at, message=f"data.{name} names {what}", hint='npz: FILE, or fn: "module:function"'))
    return RoleSpec(
        role=name,
        npz=_path(text.npz, (*at, "npz"), folder, problems),
        fn=text.fn,
        fn_path=folder if text.fn else None,
        samples=text.samples,
        seed=text.seed,
        slices=text.slices,
        group=text.group,
    )


def _path(text: str | None, at: KeyPath, folder: Path, problems: list[Problem]) -> Path | None:
    if text is None:
        return None
    try:
        return resolve_path(text, folder)
    except QpipeError as error:
        problems.append(Problem.of(at, error))
        return None


def _preprocess(column: str, text: PreprocessText) -> Preprocess:
    return Preprocess(column=column, scale=text.scale, mean=_numbers(text.mean), std=_numbers(text.std))


def _numbers(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value,)
