"""The backend `openvino`: checks, builds and opens engines on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.measure.cpu import read_cpu
from qpipe.plugins.options import read_options
from qpipe.records.engine import Availability, Built, Engine, Prepared
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target
from qpipe_openvino.machine import choose_scheme, fingerprint, state, toolchain
from qpipe_openvino.options import Options

if TYPE_CHECKING:
    from qpipe.plugins.backend import Progress, Session


class OpenVinoBackend:
    """Engines are OpenVINO IR, compiled by the CPU plugin when they are opened."""

    name = "openvino"

    def check(self, target: Target) -> Availability:
        """Building and running need the same machine: an x86-64 one with the package and the target's flags."""
        cpu = read_cpu()
        read_options(Options, target)
        choose_scheme(target, cpu)
        here = state(target, cpu)
        return Availability(build=here, run=here, fingerprint=fingerprint(cpu), toolchain=toolchain())

    def scheme(self, target: Target) -> Scheme:
        """Unsigned × signed, with 7-bit weights where there is no VNNI."""
        return choose_scheme(target, read_cpu())

    def build(self, prepared: Prepared, target: Target, workdir: Path, progress: Progress) -> Built:
        """`model.xml` and `model.bin`, and what the compiled model runs as what.

        Raises:
            BuildError: OpenVINO refused the graph.
        """
        from qpipe_openvino.build import build_engine

        return build_engine(prepared, target, workdir, progress)

    def open(self, engine: Engine, target: Target) -> Session:
        """A session with the target's threads.

        Raises:
            EngineError: this machine is not one that the engine requires, or OpenVINO refused the file.
        """
        from qpipe_openvino.session import open_engine

        return open_engine(engine, target)
