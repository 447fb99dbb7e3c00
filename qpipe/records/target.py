"""A target: one piece of hardware with its runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

HostKind = Literal["local", "adb", "ssh", "emulator"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where engines of a target run: this machine, a device, or an emulator."""

    kind: HostKind = "local"
    address: str = ""
    """Serial number, `user@host`, or the emulator's name; empty for `local`."""
    rows: int | None = None
    """How many rows of a role an emulator runs. None: all, but a few of a float engine, which no gate judges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one child process of a cell may use before it is stopped."""

    timeout_s: float = 600.0
    memory_bytes: int = 8 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One piece of hardware with its runtime; `options` is validated by the backend."""

    name: str
    backend: str
    summary: str = ""
    arch: str = ""
    """Machine as `uname -m` names it (`x86_64`, `aarch64`), or empty for any."""
    isa: tuple[str, ...] = ()
    """CPU flags that it must have, by the kernel's names (`avx512_vnni`)."""
    scheme: str = ""
    """Name of the backend's scheme; empty lets the backend choose by `isa`."""
    batch_sizes: tuple[int, ...] = (1,)
    """Batch sizes to profile."""
    threads: int = 1
    host: Host = field(default_factory=Host)
    limits: Limits = field(default_factory=Limits)
    options: Mapping[str, object] = field(default_factory=dict)
    owner: str = "qpipe-core"
    """The distribution or file that defined it, for messages about duplicates."""
