"""The rows of one role, ready to be fed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qpipe.data.batches import Batch, check_finite, make_batch, may_overflow
from qpipe.data.columns import Columns
from qpipe.data.digests import confirm
from qpipe.data.generated import FunctionSource
from qpipe.data.inputs import InputColumn, check_shape, fixed_batch, match_inputs, require_column
from qpipe.data.npz import NpzSource
from qpipe.data.sources import Array, Rows, Source, draw, draw_groups
from qpipe.errors import DataError, nearest
from qpipe.records.data import DataSpec, RoleName, RoleSpec
from qpipe.records.tensors import Signature

_SMALL_BYTES = 64
_WALK_ROWS = 256
_NAMES = "biufSUMm"
"""Kinds of dtypes whose values have a name."""
_ASCII = 127
_UNLABELLED = (
    "leave rows without a label out; where some of several targets are missing leave data.label out instead, and judge "
    "by metric: {fn: 'module:function'}, which may read the column"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Rows of one role matched to a model's inputs. Nothing is read until it is asked for."""

    spec: RoleSpec
    data: DataSpec
    digest: str
    """As `role_digest`."""
    source: Source
    inputs: tuple[InputColumn, ...]
    selected: Rows
    """Row numbers in the source, ascending."""
    fixed: int | None
    """The model's fixed batch size, or None."""

    @property
    def name(self) -> RoleName:
        """`calibration`, `search` or `gate`."""
        return self.spec.role

    @property
    def rows(self) -> int:
        """Number of rows after sampling and dropping."""
        return len(self.selected)

    @property
    def where(self) -> str:
        """Role and file, for messages."""
        return f"{self.name} data ({self.source.place})"

    @property
    def batch_size(self) -> int:
        """Rows per batch: the model's fixed batch, else the pipeline's `batch`."""
        return self.fixed or self.data.batch

    @property
    def column_names(self) -> tuple[str, ...]:
        """All columns that are no model input: label, group, slices and whatever else has as many rows."""
        fed = {entry.column.name for entry in self.inputs}
        total = self.source.rows
        return tuple(n for n, column in self.source.columns.items() if n not in fed and column.rows in (None, total))

    @property
    def columns(self) -> Columns:
        """All `column_names`, each read when it is asked for."""
        return Columns(self.column_names, self.column)

    def column(self, name: str) -> Array:
        """One column over the rows of this role, as stored.

        Raises:
            DataError: no such column, NaN or an empty value in a label, group or slice column, or a file that was
                changed since the run was planned.
        """
        require_column(self.source.columns, name, self.where)
        values = self.source.read(name, self.selected)
        confirm(self.spec)
        if name == self.data.label:
            check_finite(values, self.selected, name, self.where, hint=_UNLABELLED)
        if name in (self.spec.group, *self.spec.slices):
            check_finite(values, self.selected, name, self.where)
            _check_named(values, self.selected, name, self.where)
        return values

    def batches(self, size: int | None = None) -> Iterator[Batch]:
        """Model inputs by name, preprocessed, in the order of the rows; a fresh pass at each call.

        `batch.rows` says how many rows are real: the last batch of a model with a fixed batch repeats rows to fill it.

        Raises:
            DataError: NaN or infinity in a float column, a batch of another shape, a `size` that the model forbids, or,
                after the last batch, a file that was changed since the run was planned.
        """
        wanted = self._size(size)
        short = False
        for rows, block in self.source.blocks(self._names(), self.selected, wanted):
            if short and self.fixed is not None:
                raise DataError(
                    f"{self.where}: batches of unequal row shapes cannot be joined for a fixed batch of {self.fixed}",
                    hint="yield rows of one shape",
                )
            short = len(rows) < wanted
            batch = self._batch(rows, block)
            yield batch.padded_to(wanted) if self.fixed is not None else batch
        confirm(self.spec)

    def check_values(self) -> None:
        """Walk once through the float input columns of a file; a function's batches are checked as they come.

        Raises:
            DataError: NaN or infinity; names the column and the row.
        """
        if self.spec.npz is None:
            return
        for entry in self.inputs:
            if entry.column.dtype.kind == "f":
                for rows, block in self.source.blocks((entry.column.name,), self.selected, _WALK_ROWS):
                    check_finite(block[entry.column.name], rows, entry.column.name, self.where)

    def _batch(self, rows: Rows, block: dict[str, Array]) -> Batch:
        for entry in self.inputs:
            array = block[entry.column.name]
            check_finite(array, rows, entry.column.name, self.where)
            check_shape(entry, array.shape[1:], self.where, trimmed=self.data.trim is not None)
        batch = make_batch(self.inputs, block, trim=self.data.trim)
        for entry in self.inputs:
            if entry.preprocess is not None and may_overflow(entry.column.dtype, entry.preprocess):
                check_finite(batch[entry.spec.name], rows, entry.column.name, f"{self.where}, after preprocess")
        return batch

    def _names(self) -> tuple[str, ...]:
        names = (*(entry.column.name for entry in self.inputs), *((self.data.trim,) if self.data.trim else ()))
        return tuple(dict.fromkeys(names))

    def _size(self, size: int | None) -> int:
        if size is not None and self.fixed is not None and size != self.fixed:
            raise DataError(
                f"the model's batch is fixed at {self.fixed}, and batches of {size} are asked for",
                hint=f"set batch_sizes: [{self.fixed}], or export the model with a free batch axis",
            )
        return size or self.batch_size


def read_role(data: DataSpec, name: RoleName, signature: Signature, *, digest: str) -> Role:
    """Match the rows of a role to the model, before any dropping for overlap.

    Raises:
        DataError: as `open_role`.
    """
    spec = data.role(name)
    if spec is None:
        raise DataError(f"the pipeline has no {name} data", hint=f"add data.{name}: {{npz: FILE}}")
    _check_output(data, signature)
    source = _open_source(spec)
    where = f"{name} data ({source.place})"
    if not source.columns:
        raise DataError(f"{where} has no rows", hint="it must yield at least one batch")
    inputs = match_inputs(data, source.columns, signature, where)
    _check_trim(data, source, where)
    _check_used(data, spec, source, inputs, where)
    role = Role(
        spec=spec,
        data=data,
        digest=digest,
        source=source,
        inputs=inputs,
        selected=_select(spec, source, inputs, where),
        fixed=fixed_batch(signature, where),
    )
    _check_small_columns(role)
    return role


def _check_output(data: DataSpec, signature: Signature) -> None:
    names = [spec.name for spec in signature.outputs]
    if data.output is not None and data.output not in names:
        raise DataError(
            f"data.output: the model has no output {data.output!r}{nearest(data.output, names)}",
            hint=f"its outputs: {', '.join(names)}",
        )


def _open_source(spec: RoleSpec) -> Source:
    if spec.npz is not None:
        return NpzSource(spec.npz, sealed=spec.seal is not None)
    if spec.fn is not None:
        return FunctionSource(spec.fn, spec.fn_path)
    raise DataError(f"{spec.role} data names neither npz nor fn", hint=f"add data.{spec.role}: {{npz: FILE}}")


def _check_trim(data: DataSpec, source: Source, where: str) -> None:
    if data.trim is None:
        return
    column = require_column(source.columns, data.trim, where, use="trim")
    if len(column.shape) != 1 or column.dtype.kind not in "biu":
        raise DataError(
            f"{where}: trim column {column} is no 0/1 mask [rows, length]", hint="e.g. trim: attention_mask"
        )


def _outcome_columns(data: DataSpec, spec: RoleSpec) -> tuple[tuple[str, str], ...]:
    label = (("label", data.label),) if data.label is not None and spec.role != "calibration" else ()
    group = (("group", spec.group),) if spec.group is not None else ()
    return (*label, *group, *(("slice", name) for name in spec.slices))


def _check_used(data: DataSpec, spec: RoleSpec, source: Source, inputs: tuple[InputColumn, ...], where: str) -> None:
    used = [entry.column for entry in inputs]
    used += [require_column(source.columns, name, where, use=use) for use, name in _outcome_columns(data, spec)]
    used += [source.columns[data.trim]] if data.trim else []
    if len({column.rows for column in used}) > 1:
        listed = ", ".join(f"{column.name!r} {column.rows}" for column in used)
        raise DataError(f"{where}: columns have unequal numbers of rows: {listed}", hint="every column needs all rows")


def _select(spec: RoleSpec, source: Source, inputs: tuple[InputColumn, ...], where: str) -> Rows:
    known = inputs[0].column.rows
    total = source.rows if known is None else known
    if total == 0:
        raise DataError(f"{where} has 0 rows", hint="give at least one row")
    if spec.samples is not None and not 0 < spec.samples <= total:
        raise DataError(
            f"{where} has {total} rows, and samples: {spec.samples} asks for another number",
            hint=f"ask for 1 to {total} samples",
        )
    if spec.samples is not None and spec.samples < total and spec.group is not None:
        every = draw(total, None, spec.seed)
        groups = source.read(spec.group, every)
        _check_named(groups, every, spec.group, where)
        return _select_groups(groups, spec.group, spec.samples, spec.seed, where)
    return draw(total, spec.samples, spec.seed)


def _select_groups(groups: Array, column: str, samples: int, seed: int, where: str) -> Rows:
    drawn = draw_groups(groups, samples, seed)
    if not len(drawn):
        raise DataError(
            f"{where}: groups of {column!r} are drawn whole, and samples: {samples} is fewer rows than one has",
            hint=f"ask for at least {int(np.unique(groups, return_counts=True)[1].max())} samples",
        )
    return drawn


def _check_small_columns(role: Role) -> None:
    for _, name in _outcome_columns(role.data, role.spec):
        column = role.source.columns[name]
        if column.dtype.itemsize * int(np.prod(column.shape)) <= _SMALL_BYTES:
            role.column(name)


def _check_named(values: Array, rows: Rows, name: str, where: str) -> None:
    if values.ndim != 1:
        raise DataError(
            f"{where}: column {name!r} has rank {values.ndim}, a slice or group column has rank 1",
            hint="one name or number per row",
        )
    if values.dtype.kind not in _NAMES or _is_raw(values):
        raise DataError(
            f"{where}: column {name!r} is {values.dtype.name}, which names no slice or group", hint="save it as text"
        )
    missing = _unnamed(values)
    if missing.any():
        first = rows[int(np.argmax(missing))]
        raise DataError(f"{where}: column {name!r} is empty at row {first}", hint="name the slice of every row")


def _is_raw(values: Array) -> bool:
    """Bytes that are no ASCII text."""
    return values.dtype.kind == "S" and bool((np.ascontiguousarray(values).view(np.uint8) > _ASCII).any())


def _unnamed(values: Array) -> NDArray[np.bool_]:
    if values.dtype.kind in "mM":
        return np.asarray(np.isnat(values))
    if values.dtype.kind in "US":
        return np.asarray(np.char.strip(values.astype(np.str_)) == "")
    return np.zeros(len(values), np.bool_)
