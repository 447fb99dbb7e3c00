"""Where rows come from, in which role, and how columns become model inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RoleName = Literal["calibration", "search", "gate"]
ROLES: tuple[RoleName, ...] = ("calibration", "search", "gate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """(x · scale − mean) / std in float32; mean and std are per channel (axis 1) or single numbers."""

    column: str
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """The digest of a file when the run was planned. It holds as long as size and modification time stay the same."""

    size_bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSpec:
    """The rows of one role: an `.npz` file, or a function that yields batches of columns."""

    role: RoleName
    npz: Path | None = None
    seal: Seal | None = None
    """Of `npz`, once that was read: with it, children know the digest without reading the file again."""
    fn: str | None = None
    """`module:function`; called without arguments, yields `{column: array}` batches."""
    fn_path: Path | None = None
    """Folder put first on the import path for `fn`: that of the pipeline file."""
    samples: int | None = None
    """Draw this many rows without replacement with `seed`; None takes all in order."""
    seed: int = 0
    slices: tuple[str, ...] = ()
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """All roles of a pipeline with the mapping from columns to model inputs."""

    inputs: tuple[tuple[str, str], ...]
    """(column, model input); equal names need no line."""
    label: str | None
    preprocess: tuple[Preprocess, ...]
    roles: tuple[RoleSpec, ...]
    output: str | None = None
    """The model output that is judged; None is the first one."""
    trim: str | None = None
    """Name of a 0/1 mask column: each batch is cut to its longest row along axis 1."""
    batch: int = 16
    """Rows of a batch while evaluating and calibrating: few enough that activations stay in the caches."""
    overlap: Literal["error", "drop-from-search"] = "error"

    def role(self, name: RoleName) -> RoleSpec | None:
        """The rows of one role, or None where the pipeline has none."""
        return next((role for role in self.roles if role.role == name), None)
