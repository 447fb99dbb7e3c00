"""The `tflm` backend: Cortex-M with tflite-micro."""

from __future__ import annotations

from pathlib import Path

from qpipe_litert.backend import cpu_fingerprint, missing_packages, to_build
from qpipe_litert.backend import toolchain as litert_toolchain
from qpipe_litert.tools import create_tool

from qpipe.engines import check_requirements
from qpipe.errors import RefusedError
from qpipe.plugins.backend import Progress, Session
from qpipe.plugins.options import read_options
from qpipe.plugins.packages import missing_package, package_versions
from qpipe.quant.schemes import LITERT_INTEGER, LITERT_MICRO, named_scheme
from qpipe.records.engine import Availability, Built, Engine, Fact, Prepared, Ready, Requirement
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target
from qpipe_mcu.options import KIB, TflmOptions

PACKAGE = "tflite-micro"
INSTALL = "pip install --pre qpipe-mcu"
REQUIRES = (Requirement(what="package", value=PACKAGE),)


class TflmBackend:
    """Engines are an inlined `.tflite` and the same as C source; outputs come from the real interpreter."""

    name = "tflm"

    def check(self, target: Target) -> Availability:
        """Whether tflite-micro and the converter's environment are here."""
        self.scheme(target)
        missing = missing_packages() or missing_package(PACKAGE, hint=INSTALL)
        return Availability(
            build=missing or to_build(),
            run=missing or Ready(),
            fingerprint=f"tflite-micro on {cpu_fingerprint()}",
            toolchain=(*litert_toolchain(), *package_versions(PACKAGE)),
        )

    def scheme(self, target: Target) -> Scheme:
        """LiteRT with int8 outputs throughout: the same files run."""
        read_options(TflmOptions, target)
        return integer_scheme(target)

    def build(self, prepared: Prepared, target: Target, workdir: Path, progress: Progress) -> Built:
        """`model.tflite`, `layout.json`, `model_data.c` and `.h`; refused where it does not fit the target."""
        from qpipe_litert.build import MODEL
        from qpipe_litert.session import LAYOUT

        from qpipe_mcu.build import build_micro, place_micro
        from qpipe_mcu.carray import write_c_array
        from qpipe_mcu.micro import allocations

        options = read_options(TflmOptions, target)
        made = build_micro(prepared, workdir, progress)
        require_fit("arena", made.arena_bytes, options.arena_kib, target)
        require_fit("flash", len(made.data), options.flash_kib, target)
        notes = (*made.notes, *allocations(made.data, made.arena_bytes))
        return Built(
            files=(Path(MODEL), Path(LAYOUT)),
            artifacts=write_c_array(made.data, workdir),
            placement=place_micro(workdir / MODEL, made.left, notes, made.names),
            facts=(
                Fact(name="arena_bytes", value=made.arena_bytes, unit="bytes", kind="estimated"),
                Fact(name="flash_bytes", value=len(made.data), unit="bytes", kind="measured"),
            ),
            requires=REQUIRES,
            toolchain=(*litert_toolchain(), *package_versions(PACKAGE)),
            notes=made.notes,
        )

    def open(self, engine: Engine, target: Target) -> Session:
        """The tflite-micro interpreter with the arena that the build found."""
        read_options(TflmOptions, target)
        return open_session(engine)

    def setup(self, target: Target, progress: Progress) -> None:  # noqa: ARG002 - one environment for all targets
        """Make the converter's environment."""
        create_tool(progress)


def integer_scheme(target: Target) -> Scheme:
    """That of microcontrollers, or by name the narrower one of int8 files.

    Raises:
        TargetError: the target names another one.
    """
    return named_scheme(target, {one.name: one for one in (LITERT_MICRO, LITERT_INTEGER)}) or LITERT_MICRO


def open_session(engine: Engine) -> Session:
    """A session on `model.tflite` of an engine folder.

    Raises:
        EngineError: tflite-micro is not installed, or cannot load the file.
    """
    from qpipe_litert.session import read_layout

    from qpipe_mcu.micro import smallest_arena
    from qpipe_mcu.session import open_engine

    check_requirements(engine)
    data = engine.main_file.read_bytes()
    known = next((int(fact.value) for fact in engine.facts if fact.name == "arena_bytes"), 0)
    return open_engine(data, known or smallest_arena(data), read_layout(engine.path), engine.signature)


def require_fit(what: str, needed_bytes: int, limit_kib: int, target: Target) -> None:
    """Refuse an engine that is larger than what the target has.

    Raises:
        RefusedError: with both numbers.
    """
    if limit_kib and needed_bytes > limit_kib * KIB:
        raise RefusedError(
            f"the engine needs {needed_bytes} bytes of {what}, target {target.name} has {limit_kib * KIB}",
            hint=f"a smaller model, or raise the target's option {what}_kib",
        )
