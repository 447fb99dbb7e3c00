"""Whether engines of a target can be built and run here, and precisely what is missing."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from qpipe.records.engine import Availability, Ready, Unavailable
from qpipe_tensorrt import __version__, capability
from qpipe_tensorrt.driver import Gpu, NoGpu, serving
from qpipe_tensorrt.products import PRODUCTS, major
from qpipe_tensorrt.schemes import precision_of

if TYPE_CHECKING:
    from qpipe.records.target import Target
    from qpipe_tensorrt.options import Options

Gpus = tuple[Gpu, ...] | NoGpu


def judge(target: Target, options: Options, version: str | None, gpus: Gpus) -> Availability:
    """What can be done with this version of the package (None: not installed) and these GPUs."""
    never = impossible(target, options)
    if never is not None:
        return Availability(build=never, run=never)
    package = missing_package(options, version)
    gpu = _gpu(options, gpus)
    gpu_missing = gpu if isinstance(gpu, Unavailable) else None
    to_build = package or _host(target) or (None if options.vendor.builds_without_gpu else gpu_missing)
    to_run = package or _host(target) or gpu_missing
    if options.simulate and gpu_missing is not None:
        to_run = package
    return Availability(
        build=to_build or Ready(),
        run=to_run or Ready(),
        fingerprint=_fingerprint(options, gpu),
        toolchain=_toolchain(target, options, version, gpu),
    )


def impossible(target: Target, options: Options) -> Unavailable | None:
    """Why no machine can ever do this, or None."""
    wanted = precision_of(target)
    for number in options.capabilities:
        if number not in options.vendor.capabilities:
            others = [product.name for product in PRODUCTS.values() if number in product.capabilities]
            return Unavailable(
                reason=f"{options.product} does not serve compute capability {number}",
                hint=f"set `product: {others[0]}`" if others else f"{options.product} serves {_listed(options)}",
                impossible=True,
            )
        for precision in (wanted, *options.precisions):
            if not capability.has(number, precision):
                return Unavailable(
                    reason=f"compute capability {number} has no {precision.upper()}",
                    hint=f"it has {', '.join(capability.precisions(number))}; `scheme: tensorrt` is INT8",
                    impossible=True,
                )
    if options.precisions and wanted not in options.precisions:
        return Unavailable(
            reason=f"the target's precisions ({', '.join(options.precisions)}) lack {wanted}, which its scheme needs",
            hint="choose another scheme or correct `precisions`",
            impossible=True,
        )
    return _product_only(options)


def _listed(options: Options) -> str:
    return ", ".join(options.vendor.capabilities)


def _product_only(options: Options) -> Unavailable | None:
    """Builds that only one of the products offers."""
    if options.vendor.builds_without_gpu:
        if options.version_compatible:
            return _unsupported(options, "version_compatible", "use `product: tensorrt`")
        if options.hardware_compatibility != "none":
            return _unsupported(options, "hardware_compatibility", "list further capabilities in `also:`")
    elif options.also:
        return _unsupported(options, "also", "set `hardware_compatibility: ampere-plus`")
    elif options.reproducible:
        return _unsupported(options, "reproducible", "keep a timing cache: it chooses kernels by the clock of its GPU")
    return None


def _unsupported(options: Options, key: str, hint: str) -> Unavailable:
    return Unavailable(reason=f"{options.product} has no `{key}` builds", hint=hint, impossible=True)


def missing_package(options: Options, version: str | None) -> Unavailable | None:
    """What is wrong with the vendor's package at this version (None: not installed), or None."""
    vendor = options.vendor
    install = f"pip install 'qpipe-tensorrt[{vendor.extra}]' (NVIDIA's proprietary licence)"
    if version is None:
        return Unavailable(reason=f"the package {vendor.module} is not installed", hint=install)
    if major(version) < vendor.oldest:
        return Unavailable(
            reason=f"{vendor.module} {version} is installed; {vendor.oldest} or later is needed", hint=install
        )
    return None


def _host(target: Target) -> Unavailable | None:
    machine = platform.machine()
    if target.arch in ("", machine) or target.host.kind != "local":
        return None
    return Unavailable(reason=f"this machine is {machine}, the target is {target.arch}", hint="run qpipe on the target")


def _gpu(options: Options, gpus: Gpus) -> Gpu | Unavailable:
    if isinstance(gpus, NoGpu):
        return Unavailable(reason=gpus.reason, hint=gpus.hint)
    gpu = serving(gpus, options.capabilities)
    if gpu is not None:
        return gpu
    found = "; ".join(f"{gpu.name} ({gpu.capability})" for gpu in gpus)
    return Unavailable(
        reason=f"another GPU: this machine has {found}, the target is compute capability {options.compute_capability}",
        hint="choose a target of that capability",
    )


def _fingerprint(options: Options, gpu: Gpu | Unavailable) -> str:
    if isinstance(gpu, Gpu):
        return gpu.fingerprint
    return f"simulated on {platform.machine()}" if options.simulate else ""


def _toolchain(
    target: Target, options: Options, version: str | None, gpu: Gpu | Unavailable
) -> tuple[tuple[str, str], ...]:
    """What shapes an engine beside its model: `tensorrt` engines depend on the GPU that timed their tactics too."""
    sizes = ", ".join(str(size) for size in target.batch_sizes)
    known = [
        ("qpipe-tensorrt", __version__),
        (options.vendor.module, version or "missing"),
        ("batch sizes of the profiles", sizes),
    ]
    if isinstance(gpu, Gpu) and not options.vendor.builds_without_gpu:
        known += [("gpu", gpu.name), ("driver", gpu.driver)]
    return tuple(known)
