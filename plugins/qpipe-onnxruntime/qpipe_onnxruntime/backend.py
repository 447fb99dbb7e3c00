"""The backend `onnxruntime`: checks, builds and opens engines on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.engines import check_requirements
from qpipe.hosts.device import ask_device
from qpipe.measure.cpu import read_cpu
from qpipe.plugins.options import read_options
from qpipe.records.engine import Availability, Built, Engine, Prepared, Ready, Unavailable
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target
from qpipe_onnxruntime.machine import (
    can_run,
    choose_scheme,
    fingerprint,
    onnxruntime_version,
    toolchain,
)
from qpipe_onnxruntime.options import Options

if TYPE_CHECKING:
    from qpipe.plugins.backend import Progress, Session


class OnnxRuntimeBackend:
    """ONNX Runtime with its CPU execution provider."""

    name = "onnxruntime"

    def check(self, target: Target) -> Availability:
        """Building works anywhere onnxruntime is installed; running needs the target's architecture and flags.

        A target with a `host:` runs there: the device is asked whether it answers.

        Raises:
            TargetError: unknown options or scheme.
        """
        cpu = read_cpu()
        options = read_options(Options, target)
        choose_scheme(target, cpu)
        missing = Unavailable(reason="onnxruntime is not installed", hint="pip install onnxruntime")
        run, device = can_run(target, cpu), fingerprint(cpu)
        if target.host.kind != "local":
            run, device = ask_device(target.host, python=options.python)
        return Availability(
            build=Ready() if onnxruntime_version() else missing,
            run=run,
            fingerprint=device,
            toolchain=toolchain(),
        )

    def scheme(self, target: Target) -> Scheme:
        """Unsigned × signed on x86-64, with 7-bit weights where there is no VNNI; signed × signed on arm64."""
        return choose_scheme(target, read_cpu())

    def build(self, prepared: Prepared, target: Target, workdir: Path, progress: Progress) -> Built:
        """Write the graph, load it as `open` will, and read from the optimized graph what runs as what.

        Raises:
            BuildError: onnxruntime refused the graph.
        """
        from qpipe_onnxruntime.build import build_engine

        return build_engine(prepared, target, workdir, progress)

    def open(self, engine: Engine, target: Target) -> Session:
        """A session with the target's threads, on this machine's CPU or on the target's host.

        Raises:
            EngineError: this machine is not one that the engine requires, onnxruntime refused the file, or the device
                cannot be reached, lacks onnxruntime or computes wrong results.
        """
        if target.host.kind != "local":
            from qpipe_onnxruntime.remote import open_remote

            return open_remote(engine, target)
        from qpipe_onnxruntime.session import open_engine

        check_requirements(engine)
        return open_engine(engine, target)
