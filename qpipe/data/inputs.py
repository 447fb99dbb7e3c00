"""Which column feeds which model input, and whether it can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qpipe.data.sources import Column
from qpipe.errors import DataError, nearest
from qpipe.records.data import DataSpec, Preprocess
from qpipe.records.tensors import Dim, Signature, TensorSpec

IMAGE_AXES = 3
"""Axes of one row that is an image: channels, height and width in some order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputColumn:
    """A column, the model input that it feeds, and its preprocessing."""

    column: Column
    spec: TensorSpec
    preprocess: Preprocess | None


def match_inputs(
    data: DataSpec, columns: Mapping[str, Column], signature: Signature, where: str
) -> tuple[InputColumn, ...]:
    """One column for each model input, in the model's order.

    Raises:
        DataError: a name that does not exist, or a column whose rank, shape or dtype is not the model's.
    """
    chosen = _columns_of_inputs(data, columns, signature, where)
    _check_preprocess_names(data, chosen, where)
    steps = {step.column: step for step in data.preprocess}
    inputs = tuple(
        InputColumn(column=chosen[spec.name], spec=spec, preprocess=steps.get(chosen[spec.name].name))
        for spec in signature.inputs
    )
    for entry in inputs:
        _check_dtype(entry, where)
        check_shape(entry, entry.column.shape, where, trimmed=data.trim is not None)
        _check_channels(entry, where)
    return inputs


def fixed_batch(signature: Signature, where: str) -> int | None:
    """The model's fixed batch size, or None where axis 0 is free.

    Raises:
        DataError: an input without a batch axis, or inputs with unequal fixed batch sizes.
    """
    bare = next((spec for spec in signature.inputs if not spec.shape), None)
    if bare is not None:
        raise DataError(
            f"{where}: model input {bare} has no batch axis", hint="export the model with a batch axis first"
        )
    sizes = {size for spec in signature.inputs if isinstance(size := spec.shape[0], int)}
    if len(sizes) > 1:
        listed = "; ".join(map(str, signature.inputs))
        raise DataError(
            f"{where}: model inputs differ on axis 0: {listed}", hint="axis 0 must be the batch of every input"
        )
    return next(iter(sizes), None)


def check_shape(entry: InputColumn, shape: tuple[int, ...], where: str, *, trimmed: bool) -> None:
    """Compare the shape of a row with that of the model input.

    Raises:
        DataError: another rank, or another size on a fixed axis.
    """
    expected = entry.spec.shape[1:]
    if not _fits(shape, expected):
        rows = ", ".join(("rows", *map(str, shape)))
        raise DataError(
            f"{where}: column {entry.column.name!r} has shape [{rows}], model input {entry.spec} takes another",
            hint=_reshaped(entry.column.name, shape, expected),
        )
    if trimmed and expected and isinstance(expected[0], int) and len(expected) == 1:
        raise DataError(
            f"{where}: `trim` cuts axis 1, but model input {entry.spec} is fixed there",
            hint="leave `trim` out, or export the model with a free sequence length",
        )


def _fits(shape: tuple[int, ...], expected: tuple[Dim, ...]) -> bool:
    return len(shape) == len(expected) and all(
        not isinstance(want, int) or want == have for want, have in zip(expected, shape, strict=True)
    )


def _reshaped(column: str, shape: tuple[int, ...], expected: tuple[Dim, ...]) -> str:
    """What to write where the same numbers fit in another layout; shapes are those of a row."""
    if not shape and _fits((1,), expected):
        return f"the model takes a column of its own: save {column}[:, None]"
    if len(shape) == IMAGE_AXES and _fits((shape[2], *shape[:2]), expected):
        return f"the model takes channels first: save {column}.transpose(0, 3, 1, 2)"
    if len(shape) == IMAGE_AXES and _fits((*shape[1:], shape[0]), expected):
        return f"the model takes channels last: save {column}.transpose(0, 2, 3, 1)"
    return "axis 0 counts rows; each row has the shape that the model takes"


def _columns_of_inputs(
    data: DataSpec, columns: Mapping[str, Column], signature: Signature, where: str
) -> dict[str, Column]:
    names = [spec.name for spec in signature.inputs]
    chosen: dict[str, Column] = {}
    for column, name in data.inputs:
        if name not in names:
            raise DataError(
                f"data.inputs: column {column!r} goes to {name!r}, no input of the model{nearest(name, names)}",
                hint=f"the model takes {'; '.join(map(str, signature.inputs))}",
            )
        if name in chosen:
            raise DataError(
                f"data.inputs: two columns go to model input {name!r}", hint="name one column per model input"
            )
        chosen[name] = require_column(columns, column, where)
    for spec in signature.inputs:
        if spec.name not in chosen:
            if spec.name not in columns:
                raise DataError(
                    f"{where}: no column for model input {spec}{nearest(spec.name, columns)}",
                    hint=f"write data.inputs: {{COLUMN: {spec.name}}}; there are {_listed(columns)}",
                )
            chosen[spec.name] = columns[spec.name]
    return chosen


def require_column(columns: Mapping[str, Column], name: str, where: str, *, use: str = "") -> Column:
    """The column of that name.

    Raises:
        DataError: no such column; names the nearest.
    """
    if name not in columns:
        wanted = f"{use} column" if use else "column"
        raise DataError(f"{where}: no {wanted} {name!r}{nearest(name, columns)}", hint=f"there are {_listed(columns)}")
    return columns[name]


def _check_preprocess_names(data: DataSpec, chosen: Mapping[str, Column], where: str) -> None:
    used = [column.name for column in chosen.values()]
    for step in data.preprocess:
        if step.column not in used:
            raise DataError(
                f"{where}: preprocess names {step.column!r}, which is no input column{nearest(step.column, used)}",
                hint=f"input columns are {', '.join(used)}",
            )


def _check_dtype(entry: InputColumn, where: str) -> None:
    have, want = entry.column.dtype, _numpy_dtype(entry.spec, where)
    is_float = want.kind == "f"
    message = f"{where}: column {entry.column.name!r} is {have.name}, model input {entry.spec} takes {want.name}"
    if entry.preprocess is not None:
        if not is_float or have.kind not in "biuf":
            raise DataError(
                f"{message}; preprocess yields float32", hint="preprocess is for numbers fed to float inputs"
            )
        return
    if is_float and have.kind in "biu":
        name = entry.column.name
        raise DataError(message, hint=f"add data.preprocess: {{{name}: {{scale: …, mean: […], std: […]}}}}")
    same_kind = have.kind == want.kind or {have.kind, want.kind} <= {"i", "u"}
    if not same_kind or not np.can_cast(have, want, casting="safe"):
        hint = f"save it as {want.name}" + (", or add data.preprocess, which casts" if is_float else "")
        raise DataError(message, hint=hint)


def _numpy_dtype(spec: TensorSpec, where: str) -> np.dtype[np.generic]:
    try:
        return np.dtype(spec.dtype)
    except TypeError as error:
        raise DataError(
            f"{where}: model input {spec} has a dtype that NumPy lacks",
            hint="export the model with a float32 input, cast inside",
        ) from error


def _check_channels(entry: InputColumn, where: str) -> None:
    step = entry.preprocess
    if step is None:
        return
    channels = entry.column.shape[0] if entry.column.shape else 1
    for key, numbers in (("mean", step.mean), ("std", step.std)):
        if len(numbers) not in (1, channels):
            raise DataError(
                f"{where}: preprocess.{entry.column.name}.{key} has {len(numbers)} numbers, "
                f"the column has {channels} channels on axis 1",
                hint="give one number, or one per channel",
            )


def _listed(columns: Mapping[str, Column]) -> str:
    return ", ".join(map(str, columns.values())) or "none"
