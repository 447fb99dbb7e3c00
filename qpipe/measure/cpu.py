"""What this machine's processor is: model, architecture, instruction sets. Light: `check` of backends calls it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from qpipe.engines.machine import CPUINFO, cpu_flags, cpuinfo_fields

RELEVANT_FLAGS = (
    *("avx", "f16c", "fma", "avx2", "avx_vnni", "avx_vnni_int8", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
"""Flags that choose a kernel of a neural-network runtime, by the kernel's names."""
VNNI = "avx512_vnni|avx_vnni"
"""`vpdpbusd` in its EVEX or VEX form: sums four uint8 × int8 products in 32 bits, without saturation."""

AMX = "amx_int8"
"""Products of 16 × 64 by 64 × 16 bytes in one instruction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """One processor as `/proc/cpuinfo` tells it."""

    model: str
    arch: str
    """As `uname -m` names it."""
    flags: frozenset[str]
    count: int
    """Processors that this process may use."""

    @property
    def isa(self) -> tuple[str, ...]:
        """The relevant flags that it has, in a fixed order."""
        return tuple(flag for flag in RELEVANT_FLAGS if flag in self.flags)

    def has(self, demand: str) -> bool:
        """Whether it meets one demand: a flag, or alternatives as in `avx512_vnni|avx_vnni`."""
        return any(flag in self.flags for flag in demand.split("|"))

    def named(self, isa: tuple[str, ...]) -> Cpu:
        """The processor that a target's `isa` names, with those flags alone; this one where it names none."""
        return replace(self, flags=frozenset(flag for demand in isa for flag in demand.split("|"))) if isa else self

    def __str__(self) -> str:
        return f"{self.model} ({self.arch}; {' '.join(self.isa) or 'no relevant flags'})"


def read_cpu(cpuinfo: Path = CPUINFO, arch: str | None = None) -> Cpu:
    """This machine's processor, or the one of another `cpuinfo` file (of architecture `arch`)."""
    return Cpu(
        model=_model(cpuinfo_fields(cpuinfo)),
        arch=arch or platform.machine(),
        flags=cpu_flags(cpuinfo),
        count=len(os.sched_getaffinity(0)),
    )


def _model(fields: Mapping[str, list[str]]) -> str:
    """The model's name, or on arm64 implementer and part of each kind of core."""
    if names := fields.get("model name"):
        return " + ".join(dict.fromkeys(names))
    parts = zip(fields.get("cpu implementer", []), fields.get("cpu part", []), strict=False)
    return (
        " + ".join(dict.fromkeys(f"implementer {implementer} part {part}" for implementer, part in parts)) or "unknown"
    )
