"""Whether this machine is the one that a target names. No onnxruntime import: `qpipe targets` calls it."""

from __future__ import annotations

from qpipe.engines.machine import UNTOLD
from qpipe.measure.cpu import AMX, VNNI, Cpu
from qpipe.measure.host import beyond_target
from qpipe.plugins.packages import ABSENT, package_version
from qpipe.quant.schemes import ORT_ARM64, ORT_X86_AMX, ORT_X86_AVX2, ORT_X86_VNNI, named_scheme
from qpipe.records.engine import Ready, Requirement, Unavailable
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target

SCHEMES = {scheme.name: scheme for scheme in (ORT_X86_VNNI, ORT_X86_AMX, ORT_X86_AVX2, ORT_ARM64)}
_ARM = ("aarch64", "arm64")
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")


def choose_scheme(target: Target, cpu: Cpu) -> Scheme:
    """The scheme that the target names, or the one of its architecture and flags, or of this machine's.

    Raises:
        TargetError: the target names a scheme that this backend does not have.
    """
    if named := named_scheme(target, SCHEMES):
        return named
    if (target.arch or cpu.arch) in _ARM:
        return ORT_ARM64
    cpu = cpu.named(target.isa)
    if not cpu.has(VNNI):
        return ORT_X86_AVX2
    return ORT_X86_AMX if cpu.has(AMX) else ORT_X86_VNNI


def requirements(target: Target, cpu: Cpu, *, quantized: bool) -> tuple[Requirement, ...]:
    """What an engine of this target needs of a machine: `arch`, `isa` (a flag), `isa_any` (one of `a|b`).

    A quantized engine whose target names no flags (`cpu-local`) needs those that its scheme supposes: 8-bit weights
    saturate on x86-64 without VNNI.
    """
    found = [Requirement(what="arch", value=target.arch or cpu.arch)]
    isa = target.isa
    if not isa and quantized and choose_scheme(target, cpu) in (ORT_X86_VNNI, ORT_X86_AMX):
        isa = (VNNI,)
    return (*found, *(Requirement(what="isa_any" if "|" in demand else "isa", value=demand) for demand in isa))


def can_run(target: Target, cpu: Cpu) -> Ready | Unavailable:
    """Whether engines of this target run on this machine, or why not."""
    lacks = [why for demand in requirements(target, cpu, quantized=False) if (why := _lacks(demand, cpu))]
    if lacks:
        return Unavailable(
            reason=f"{target.name} needs {'; '.join(lacks)}",
            hint=f"run it on a machine that is a {target.name}, or give the target a `host:` (ssh, adb or emulator)",
        )
    if not onnxruntime_version():
        return Unavailable(reason="onnxruntime is not installed", hint="pip install onnxruntime")
    return Ready()


def _lacks(demand: Requirement, cpu: Cpu) -> str:
    """Why this CPU does not meet one requirement, or an empty string."""
    if demand.what == "arch" and _same_arch(demand.value) != _same_arch(cpu.arch):
        return f"{demand.value}; this machine is {cpu.arch}"
    if demand.what in ("isa", "isa_any") and not cpu.has(demand.value):
        best = " ".join(cpu.isa) or "none of the flags that qpipe knows"
        has = f"this CPU ({cpu.model}) has {best}" if cpu.flags else UNTOLD
        return f"{demand.value.replace('|', ' or ')}; {has}"
    return ""


def _same_arch(arch: str) -> str:
    return "aarch64" if arch in _ARM else arch


def onnxruntime_version() -> str:
    """Version of the installed onnxruntime, or an empty string; read from metadata."""
    found = (package_version(name) for name in _DISTRIBUTIONS)
    return next((version for version in found if version != ABSENT), "")


def toolchain() -> tuple[tuple[str, str], ...]:
    """Versions of what shapes an engine of this backend."""
    return (("onnxruntime", onnxruntime_version()), ("qpipe-onnxruntime", package_version("qpipe-onnxruntime")))


def fingerprint(cpu: Cpu) -> str:
    """The device as far as it shapes a measurement."""
    return f"{cpu.model}; {cpu.arch}; {' '.join(cpu.isa)}; {cpu.count} cpus; onnxruntime {onnxruntime_version()}"


def notes(target: Target, cpu: Cpu) -> tuple[str, ...]:
    """What is true of engines built here and a reader could take for something else."""
    if beyond := beyond_target(cpu, target.isa):
        return (
            f"this CPU also has {' '.join(beyond)}, which {target.name} does not name: onnxruntime chooses kernels at "
            "run time, so timings here are not those of a machine without it",
        )
    if not cpu.flags and choose_scheme(target, cpu) == ORT_X86_AVX2:
        return (f"{UNTOLD}: it counts as one without VNNI",)
    return ()
