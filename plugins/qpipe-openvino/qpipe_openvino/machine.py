"""Whether this machine runs OpenVINO engines, and in what arithmetic. `qpipe targets` calls it: no openvino here."""

from __future__ import annotations

import os
from dataclasses import replace

from qpipe.measure.cpu import VNNI, Cpu
from qpipe.plugins.packages import missing_package, package_versions
from qpipe.quant.schemes import named_scheme
from qpipe.records.engine import Ready, Requirement, Unavailable
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target

ARCH = "x86_64"
BF16 = "avx512_bf16|amx_bf16"
SIGNED = "amx_int8|avx_vnni_int8"
"""Source: OpenVINO, intel_cpu/src/transformations/transformation_pipeline.cpp, `Transformations::Lpt`."""
_HOLDS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "OV_CPU_MAX_ISA")
"""Variables that hold kernels below what the CPU has: sums of 8-bit products saturate where that takes VNNI away."""
_HOLDS_NOTHING = ("", "ALL", "DEFAULT")
OPENVINO = Scheme(
    name="openvino",
    activation="uint8",
    weight="int8",
    quantize_bias=False,
    ops=("Conv", "ConvTranspose", "Gemm", "MatMul"),
    passthrough_ops=("MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"),
    joining_ops=(),
    elementwise_ops=(),
    activation_matmul=False,
    quantize_outputs=False,
    absorb_relu=False,
    table_ops=("Gather",),
)
"""Q/DQ on the inputs of weighted operators and of residual Adds, as OpenVINO's CPU plugin fuses them.

On CPUs whose convolutions read signed integers (`SIGNED`), the zero point of int8 activations would be subtracted in
layers of their own: on ResNet-20 that took 2.5 to 4 times as long. Elsewhere OpenVINO makes them unsigned by itself.
Attention's products of two activations are one fused float kernel as they are.
"""
OPENVINO_BF16 = replace(OPENVINO, name="openvino-bf16", float_types=("float32", "bfloat16"))
"""The same on CPUs that also multiply bfloat16."""
OPENVINO_AVX2 = replace(OPENVINO, name="openvino-avx2", weight_bits=7)
"""Without VNNI: 7-bit weights, since sums of two 8-bit products saturate. Source: NNCF, `overflow_fix`."""
SCHEMES = {scheme.name: scheme for scheme in (OPENVINO, OPENVINO_BF16, OPENVINO_AVX2)}


def choose_scheme(target: Target, cpu: Cpu) -> Scheme:
    """The scheme that the target names, or the one of its flags, or of this machine's.

    Raises:
        TargetError: the target names a scheme that this backend does not have.
    """
    if named := named_scheme(target, SCHEMES):
        return named
    meant = cpu.named(target.isa)
    if not meant.has(VNNI):
        return OPENVINO_AVX2
    return OPENVINO_BF16 if meant.has(BF16) else OPENVINO


def requirements(target: Target, cpu: Cpu, *, quantized: bool, bfloat16: bool) -> tuple[Requirement, ...]:
    """What an engine needs of a machine: its target's flags; where it names none, those that its kernels suppose."""
    supposed = (
        *((VNNI,) if quantized and choose_scheme(target, cpu) != OPENVINO_AVX2 else ()),
        *((BF16,) if bfloat16 else ()),
    )
    return (
        Requirement(what="package", value="openvino"),
        Requirement(what="arch", value=ARCH),
        *(Requirement(what="isa_any", value=flags) for flags in target.isa or supposed),
    )


def held_back() -> Unavailable | None:
    """The variable that keeps OpenVINO from this CPU's own kernels, in this process; None where there is none."""
    set_here = {name: os.environ.get(name, "") for name in _HOLDS}
    name = next((name for name, value in set_here.items() if value.upper() not in _HOLDS_NOTHING), None)
    if name is None:
        return None
    reason = f"{name}={set_here[name]} keeps OpenVINO from this CPU's own kernels: answers and times would not be its"
    return Unavailable(reason=reason, hint=f"unset {name}")


def state(target: Target, cpu: Cpu) -> Ready | Unavailable:
    """Whether engines of this target are built and run here: placement is read from this CPU's own kernels."""
    if held := held_back():
        return held
    if missing := missing_package("openvino", hint="pip install openvino"):
        return missing
    if target.host.kind != "local":
        reason = f"backend openvino runs on this machine alone, target {target.name} has a host"
        return Unavailable(reason=reason, hint="leave out `host:`", impossible=True)
    arch = target.arch or cpu.arch
    if {arch, cpu.arch} != {ARCH}:
        return Unavailable(reason=f"backend openvino is for {ARCH}: {target.name} is {arch}, this machine {cpu.arch}")
    if lacks := [flags for flags in target.isa if not cpu.has(flags)]:
        return Unavailable(reason=f"{target.name} needs {', '.join(lacks)}; this CPU is {cpu}")
    return Ready()


def toolchain() -> tuple[tuple[str, str], ...]:
    """Versions of what shapes an engine."""
    return package_versions("openvino", "qpipe-openvino")


def fingerprint(cpu: Cpu) -> str:
    """The device as far as it shapes a measurement."""
    return f"{cpu}; {cpu.count} cpus; openvino {toolchain()[0][1]}"
