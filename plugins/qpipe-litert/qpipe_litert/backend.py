"""The `litert` backend: check, scheme, build, open, and the tool environment."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import replace
from pathlib import Path

from qpipe.errors import EngineError, TargetError
from qpipe.hosts.device import ask_device
from qpipe.hosts.qemu_root import create_root
from qpipe.measure.cpu import read_cpu
from qpipe.plugins.backend import Progress, Session
from qpipe.plugins.options import read_options
from qpipe.plugins.packages import missing_package, package_versions
from qpipe.quant.schemes import LITERT, LITERT_INTEGER, named_scheme
from qpipe.records.engine import Availability, Built, Engine, Prepared, Ready, Requirement, Unavailable
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target
from qpipe_litert.options import Options
from qpipe_litert.tools import HINT, ONNX2TF, create_tool, tool_state

PACKAGES = ("ai-edge-litert", "ai-edge-quantizer")
_DYNAMIC = ("Conv", "Gemm", "MatMul")
SCHEME = replace(LITERT, dynamic_ops=_DYNAMIC, weight_only_bits=(4, 8))
INTEGER = replace(LITERT_INTEGER, dynamic_ops=_DYNAMIC, weight_only_bits=(4, 8))
"""What ai-edge-quantizer writes beside static INT8. Source: its `default_policy`, `ops_per_config`."""
INT16 = replace(INTEGER, name="litert-16x8", activation="int16", activation_symmetric=True)
SCHEMES = {scheme.name: scheme for scheme in (SCHEME, INTEGER, INT16)}


class LiteRtBackend:
    """Engines are `.tflite` files, quantized by ai-edge-quantizer with the plan's ranges."""

    name = "litert"

    def check(self, target: Target) -> Availability:
        """Whether the packages and the device are here. The converter's environment is made at the first build."""
        self.scheme(target)
        missing = missing_packages()
        run, device = _asked(target)
        return Availability(build=missing or to_build(), run=missing or run, fingerprint=device, toolchain=toolchain())

    def scheme(self, target: Target) -> Scheme:
        """The scheme that the target names, or the usual one of its options.

        Raises:
            TargetError: the name is none of LiteRT's, or of a scheme that these options cannot run.
        """
        fitting = fitting_schemes(read_options(Options, target))
        scheme = named_scheme(target, SCHEMES) or fitting[0]
        if scheme not in fitting:
            raise TargetError(
                f"target {target.name}: scheme {scheme.name!r} does not go with its options",
                hint=f"with these options: {' or '.join(one.name for one in fitting)}",
            )
        return scheme

    def build(self, prepared: Prepared, target: Target, workdir: Path, progress: Progress) -> Built:
        """`model.tflite` and `layout.json`."""
        from qpipe_litert.build import MODEL, build_tflite
        from qpipe_litert.placement import place
        from qpipe_litert.session import LAYOUT

        options = read_options(Options, target)
        made = build_tflite(prepared, workdir, options, progress)
        placement, facts = place(made.path, options.kernels, made.left, made.names)
        return Built(
            files=(Path(MODEL), Path(LAYOUT)),
            placement=replace(placement, notes=(*placement.notes, *made.notes)),
            facts=facts,
            requires=(Requirement(what="package", value="ai-edge-litert"),),
            toolchain=toolchain(),
            notes=made.notes,
        )

    def open(self, engine: Engine, target: Target) -> Session:
        """An interpreter with the target's threads: here, or on the target's host."""
        from qpipe_litert.local import LocalSession
        from qpipe_litert.session import LocalEngine, read_layout

        options = read_options(Options, target)
        here = missing_packages() or _asked(target)[0]
        if isinstance(here, Unavailable):
            raise EngineError(here.reason, hint=here.hint)
        layout = read_layout(engine.path)
        if target.host.kind != "local":
            from qpipe_litert.remote import open_remote

            return open_remote(engine, target, layout, options)
        local = LocalEngine(engine.main_file, threads=target.threads, kernels=options.kernels)
        return LocalSession(local, layout, engine.signature, file=engine.main_file, target=target)

    def setup(self, target: Target, progress: Progress) -> None:
        """Make the converter's environment, and the arm64 root folder where the target's host is an emulator."""
        create_tool(progress)
        if target.host.kind == "emulator":
            create_root(progress)


def fitting_schemes(options: Options) -> tuple[Scheme, ...]:
    """Asymmetric int8 activations (or symmetric int16), symmetric per-channel int8 weights; the usual scheme first.

    Dense layers at the end keep a float output, unless the border of the file is int8 or `unranged` forbids it.
    """
    if options.activations == "int16":
        return (INT16,)
    return (SCHEME, INTEGER) if options.io == "float" and options.unranged == "dynamic" else (INTEGER,)


def to_build() -> Ready:
    """Ready, and what the first build does first: it makes the converter's environment where there is none."""
    state = tool_state()
    if isinstance(state, Ready):
        return state
    what = state.reason.partition(": ")[0]  # without its path
    return Ready(note=f"{what}: the first build makes it (40 s, 0.7 GB), or {HINT}")


def missing_packages() -> Unavailable | None:
    """What must be installed first, or None."""
    return missing_package(*PACKAGES, hint="pip install qpipe-litert")


def toolchain() -> tuple[tuple[str, str], ...]:
    """Names and versions of what shapes a `.tflite`."""
    return (*package_versions(*PACKAGES), ("onnx2tf", ONNX2TF))


def cpu_fingerprint() -> str:
    """Machine, CPU model and a digest of its flags."""
    cpu = read_cpu()
    return f"{cpu.arch} {cpu.model} {hashlib.sha256(' '.join(sorted(cpu.flags)).encode()).hexdigest()[:12]}"


def _asked(target: Target) -> tuple[Ready | Unavailable, str]:
    """Whether engines run on the target's machine, and its fingerprint."""
    if target.host.kind != "local":
        return ask_device(target.host)
    return _runs(target), cpu_fingerprint()


def _runs(target: Target) -> Ready | Unavailable:
    if target.arch and target.arch != platform.machine():
        return Unavailable(
            reason=f"target {target.name} is {target.arch}, this machine is {platform.machine()}",
            hint="give the target a `host:` (ssh, adb or emulator)",
        )
    return Ready()
