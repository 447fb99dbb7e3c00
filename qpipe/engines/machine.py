"""What an engine requires of a machine, as far as every backend needs it: `arch`, `isa`, `package`."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from qpipe.errors import EngineError
from qpipe.plugins.packages import ABSENT, package_version
from qpipe.records.engine import Engine

CPUINFO = Path("/proc/cpuinfo")
UNTOLD = f"this machine does not tell its CPU's flags ({CPUINFO})"
"""Where a sandbox hides them: nothing is known to be lacking."""
_ALIASES = {"arm64": "aarch64", "AMD64": "x86_64"}


def check_requirements(engine: Engine) -> None:
    """Refuse an engine that cannot run on this machine. Other kinds of requirement are its backend's to check.

    `arch` is a machine as `uname -m` names it, `isa` (or `isa_any`) a CPU flag by the kernel's name or alternatives
    (`avx512_vnni|avx_vnni`), `package` a requirement such as `onnxruntime==1.23.2`.

    Raises:
        EngineError: naming everything that is missing.
    """
    missing = [
        reason
        for need in engine.requires
        if need.what in _CHECKS and (reason := _CHECKS[need.what](need.value)) is not None
    ]
    if missing:
        raise EngineError(
            f"engine {engine.digest[:12]} ({engine.model}/{engine.recipe}/{engine.target}) cannot run here:"
            f" {'; '.join(missing)}",
            hint=f"run it on a machine of target {engine.target}, or build it for this one",
        )


def cpuinfo_fields(cpuinfo: Path = CPUINFO) -> Mapping[str, list[str]]:
    """What each line of `/proc/cpuinfo` says, by its name in lower case; nothing where a sandbox hides the file."""
    fields: dict[str, list[str]] = {}
    with suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip().lower(), []).append(value.strip())
    return fields


def cpu_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """CPU flags by the kernel's names (x86 `flags`, Arm `Features`), those that all cores share."""
    fields = cpuinfo_fields(cpuinfo)
    cores = [frozenset(value.split()) for name in ("flags", "features") for value in fields.get(name, [])]
    return frozenset.intersection(*cores) if cores else frozenset()


def _check_arch(value: str) -> str | None:
    here = platform.machine()
    if _ALIASES.get(value, value) == _ALIASES.get(here, here):
        return None
    return f"it needs a {value} machine, this one is {here}"


def _check_isa(value: str) -> str | None:
    flags = cpu_flags()
    if not flags.isdisjoint(value.split("|")):
        return None
    return f"it needs the CPU flag {value.replace('|', ' or ')}{', which this CPU lacks' if flags else f'; {UNTOLD}'}"


def _check_package(value: str) -> str | None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        need = Requirement(value)
    except InvalidRequirement as error:
        return f"it needs {value!r}, which is not a package requirement ({error})"
    if (here := package_version(need.name)) == ABSENT:
        return f"it needs {value}, which is not installed"
    return None if need.specifier.contains(here, prereleases=True) else f"it needs {value}, here is {here}"


_CHECKS: Mapping[str, Callable[[str], str | None]] = {
    "arch": _check_arch,
    "isa": _check_isa,
    "isa_any": _check_isa,
    "package": _check_package,
}
