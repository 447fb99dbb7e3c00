"""The backend: short methods; everything else is in the modules that they call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe_tensorrt.availability import judge
from qpipe_tensorrt.driver import find_gpus, serving
from qpipe_tensorrt.options import read_options
from qpipe_tensorrt.products import installed_version
from qpipe_tensorrt.schemes import scheme_of

if TYPE_CHECKING:
    from pathlib import Path

    from qpipe.plugins.backend import Progress, Session
    from qpipe.records.engine import Availability, Built, Engine, Prepared
    from qpipe.records.scheme import Scheme
    from qpipe.records.target import Target


class TensorRT:
    """Engines for NVIDIA GPUs: `tensorrt` (data centre, Jetson) and `tensorrt-rtx` (GeForce, RTX)."""

    name = "tensorrt"

    def check(self, target: Target) -> Availability:
        """What is missing to build and to run: product, package, driver or GPU.

        Raises:
            TargetError: an option or the scheme cannot be.
        """
        options = read_options(target)
        return judge(target, options, installed_version(options.vendor), find_gpus())

    def scheme(self, target: Target) -> Scheme:
        """Symmetric int8, or FP8 where the target names that scheme."""
        return scheme_of(target, read_options(target).product)

    def build(self, prepared: Prepared, target: Target, workdir: Path, progress: Progress) -> Built:
        """Build in a process of the builder's own; the core calls this in a guarded child.

        Raises:
            BuildError: the builder refused; the message has its reason and names the node.
            UnavailableError: the package is missing.
        """
        from qpipe_tensorrt.build import build_engine

        return build_engine(prepared, target, read_options(target), workdir, progress)

    def learnt_key(self, target: Target) -> str:
        """Names the timing cache of the GPU that the builder measures tactics on; empty where it measures none."""
        from qpipe_tensorrt.timingcache import cache_key

        options = read_options(target)
        version, gpu = installed_version(options.vendor), serving(find_gpus(), options.capabilities)
        if options.vendor.builds_without_gpu or not options.timing_cache or version is None or gpu is None:
            return ""
        return cache_key(version, gpu)

    def build_with(self, prepared: Prepared, target: Target, workdir: Path, progress: Progress, learnt: Path) -> Built:
        """`build`, with the timing cache in that folder.

        Raises:
            BuildError: the builder refused; the message has its reason and names the node.
            UnavailableError: the package is missing.
        """
        from qpipe_tensorrt.build import build_engine
        from qpipe_tensorrt.timingcache import FILE, TimingCache

        cache = TimingCache(file=learnt.resolve() / FILE)
        return build_engine(prepared, target, read_options(target), workdir, progress, cache)

    def open(self, engine: Engine, target: Target) -> Session:
        """A session on the GPU, or on the CPU where the target says `simulate: true`.

        Raises:
            EngineError: no driver, another GPU, another version, or a broken engine; with what to do.
        """
        from qpipe_tensorrt.opening import open_engine

        return open_engine(engine, read_options(target))
