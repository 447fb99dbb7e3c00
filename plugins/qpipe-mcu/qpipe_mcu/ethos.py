"""The `ethos-u` backend: Arm's NPUs, by Vela's estimates."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe_litert.backend import cpu_fingerprint, missing_packages, to_build
from qpipe_litert.backend import toolchain as litert_toolchain
from qpipe_litert.tools import create_tool

from qpipe.plugins.backend import Progress, Session
from qpipe.plugins.packages import missing_package, package_versions
from qpipe.records.engine import Availability, Built, Engine, Fact, Prepared, Ready
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target
from qpipe_mcu.options import EthosOptions, read_ethos
from qpipe_mcu.tflm import INSTALL, PACKAGE, REQUIRES, integer_scheme, open_session, require_fit

if TYPE_CHECKING:
    from qpipe.records.engine import Placement
    from qpipe_mcu.vela import Estimate

VELA = "ethos-u-vela"


class EthosBackend:
    """Engines are the `.tflite` before Vela (which runs here), Vela's file, and that as C source."""

    name = "ethos-u"

    def check(self, target: Target) -> Availability:
        """Whether Vela, tflite-micro and the converter's environment are here."""
        self.scheme(target)
        missing = missing_packages() or missing_package(PACKAGE, hint=INSTALL)
        return Availability(
            build=missing or missing_package(VELA, hint=INSTALL) or to_build(),
            run=missing or Ready(),
            fingerprint=f"tflite-micro on {cpu_fingerprint()}",
            toolchain=(*litert_toolchain(), *package_versions(PACKAGE, VELA)),
        )

    def scheme(self, target: Target) -> Scheme:
        """LiteRT's: Vela compiles the same file."""
        read_ethos(target)
        return integer_scheme(target)

    def build(self, prepared: Prepared, target: Target, workdir: Path, progress: Progress) -> Built:
        """Facts are Vela's estimates and the arena; outputs come from the file before Vela."""
        from qpipe_litert.build import MODEL
        from qpipe_litert.session import LAYOUT

        from qpipe_mcu.build import build_micro, place_micro
        from qpipe_mcu.carray import write_c_array
        from qpipe_mcu.vela import compile_for_npu

        options = read_ethos(target)
        made = build_micro(prepared, workdir, progress)
        progress.step(f"compile for {options.accelerator}")
        scratch = workdir / "vela"
        try:
            compiled = compile_for_npu(workdir / MODEL, scratch, options)
            for source, name in zip((compiled.model, compiled.summary, compiled.layers), VELA_FILES, strict=True):
                shutil.move(source, workdir / name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        estimate, data = compiled.estimate, (workdir / VELA_FILES[0]).read_bytes()
        require_fit("sram", estimate.sram_bytes, options.sram_kib, target)
        require_fit("flash", len(data), options.flash_kib, target)
        c_files = write_c_array(data, workdir)
        return Built(
            files=(Path(MODEL), Path(LAYOUT)),
            artifacts=(*(Path(name) for name in VELA_FILES), *c_files),
            placement=_placement(place_micro(workdir / MODEL, made.left, made.notes), estimate, options),
            facts=facts_of(estimate, made.arena_bytes, len(data)),
            requires=REQUIRES,
            toolchain=(*litert_toolchain(), *package_versions(PACKAGE, VELA)),
            notes=(*made.notes, _NOT_RUN),
        )

    def open(self, engine: Engine, target: Target) -> Session:
        """tflite-micro on the file before Vela: an Ethos-U's arithmetic is that of the reference kernels."""
        read_ethos(target)
        return open_session(engine)

    def setup(self, target: Target, progress: Progress) -> None:  # noqa: ARG002 - one environment for all targets
        """Make the converter's environment."""
        create_tool(progress)


_NOT_RUN = "Vela's file was not run: nothing here runs it; answers and comparisons are those of the file before it"
_PARTLY = "Vela estimates neither time nor memory of what stays on the CPU: no inference_ms, sram and dram here"
_LIMITS = "the target's sram_kib was held against the NPU's part alone"
VELA_FILES = ("model_vela.tflite", "vela-summary.csv", "vela-layers.csv")


def facts_of(estimate: Estimate, arena_bytes: int, flash_bytes: int) -> tuple[Fact, ...]:
    """What Vela estimates; where operators stay on the CPU, nothing that would leave their time or memory out.

    `flash_bytes` is the size of Vela's file: its own figure is what the NPU reads there, which is nothing with DRAM.
    """
    figures = [
        ("arena_bytes", arena_bytes, "bytes"),
        ("npu_cycles", estimate.cycles, "cycles"),
        ("npu_share", estimate.npu_share, "share"),
    ]
    if not estimate.cpu_ops:
        figures += [
            ("inference_ms", estimate.inference_ms, "ms"),
            ("sram_bytes", estimate.sram_bytes, "bytes"),
            ("dram_bytes", estimate.dram_bytes, "bytes"),
        ]
    estimated = (Fact(name=name, value=float(value), unit=unit, kind="estimated") for name, value, unit in figures)
    return (*estimated, Fact(name="flash_bytes", value=flash_bytes, unit="bytes", kind="measured"))


def _placement(found: Placement, estimate: Estimate, options: EthosOptions) -> Placement:
    note = (
        f"{options.accelerator}, {options.system}, {options.memory}: {estimate.npu_ops} operators on the NPU, "
        f"{estimate.cpu_ops} on the CPU"
    )
    partly = (_PARTLY, *((_LIMITS,) if options.sram_kib else ())) if estimate.cpu_ops else ()
    notes = (note, *partly, *(f"on the CPU: {name}" for name in estimate.cpu_names), *found.notes)
    return replace(found, elsewhere=estimate.cpu_ops, notes=notes)
