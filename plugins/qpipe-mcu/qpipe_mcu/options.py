"""The `options:` of microcontroller targets."""

from __future__ import annotations

from collections.abc import Mapping
from configparser import ConfigParser
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from qpipe.errors import TargetError, nearest
from qpipe.plugins.options import read_options
from qpipe.records.target import Target

KIB = 1024
_ACCELERATORS: Mapping[str, tuple[str, str]] = {
    "ethos-u55": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "ethos-u65": ("Ethos_U65_High_End", "Dedicated_Sram"),
    "ethos-u85": ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram"),
}
"""System configuration and memory mode for each family. Source: ethos-u-vela 5.2, `config_files/Arm/vela.ini`."""
_SECTIONS = {"system": "System_Config", "memory": "Memory_Mode"}
_SIZES = {"u55": (32, 64, 128, 256), "u65": (256, 512), "u85": (128, 256, 512, 1024, 2048)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TflmOptions:
    """What a microcontroller has for the model; zero is no limit."""

    arena_kib: int = 0
    flash_kib: int = 0

    def __post_init__(self) -> None:
        _refuse_negative(arena_kib=self.arena_kib, flash_kib=self.flash_kib)


@dataclass(frozen=True, slots=True, kw_only=True)
class EthosOptions:
    """An NPU in a system: Vela's `--accelerator-config`, `--system-config` and `--memory-mode`."""

    accelerator: str = ""
    system: str = ""
    """Empty takes the usual one of the family."""
    memory: str = ""
    sram_kib: int = 0
    flash_kib: int = 0

    def __post_init__(self) -> None:
        _refuse_negative(sram_kib=self.sram_kib, flash_kib=self.flash_kib)


def _refuse_negative(**kib: int) -> None:
    for name, value in kib.items():
        if value < 0:
            raise ValueError(f"{name} is {value}: a whole number of KiB, 0 for no limit")


def read_ethos(target: Target) -> EthosOptions:
    """The options of an Ethos-U target, with the family's usual system.

    Raises:
        TargetError: an unknown key, a value of another type, or an accelerator, system or memory mode that does
            not exist.
    """
    options = read_options(EthosOptions, target)
    known = [f"ethos-{family}-{macs}" for family, sizes in _SIZES.items() for macs in sizes]
    if options.accelerator not in known:
        raise TargetError(
            f"target {target.name}: accelerator is {options.accelerator!r}", hint=f"one of: {', '.join(known)}"
        )
    system, memory = _ACCELERATORS[options.accelerator.rpartition("-")[0]]
    for key, name in (("system", options.system), ("memory", options.memory)):
        _check_section(target, key, name)
    return replace(options, system=options.system or system, memory=options.memory or memory)


def _check_section(target: Target, key: str, name: str) -> None:
    """Vela's own file says which systems and memory modes there are; where it is not installed, nothing does."""
    spec = find_spec("ethosu") if name else None
    if spec is None or not spec.submodule_search_locations:
        return
    file = ConfigParser()
    file.read(Path(spec.submodule_search_locations[0], "config_files", "Arm", "vela.ini"), "utf-8")
    start = f"{_SECTIONS[key]}."
    known = [section.removeprefix(start) for section in file.sections() if section.startswith(start)]
    if known and name not in known:
        raise TargetError(
            f"target {target.name}: {key} is {name!r}, which Vela's Arm/vela.ini does not have{nearest(name, known)}",
            hint=f"one of: {', '.join(known)}",
        )
