"""What an engine requires of a machine, and the refusal of engines of other machines and versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from qpipe.errors import EngineError
from qpipe.records.engine import Requirement
from qpipe_tensorrt import capability
from qpipe_tensorrt.driver import Gpu, NoGpu, find_gpus, serving
from qpipe_tensorrt.products import Product, installed_version, major

if TYPE_CHECKING:
    from qpipe.records.engine import Engine
    from qpipe_tensorrt.options import Options

_REBUILD = "build it again on this machine, or run it where it was built"


def requirements(options: Options, version: str) -> tuple[Requirement, ...]:
    """Product, version, compute capability and, where the builder timed on a GPU, that GPU and its driver."""
    needs = [
        Requirement(what="tensorrt-product", value=options.product),
        Requirement(what="tensorrt-version", value=version),
        Requirement(what="compute-capability", value=" ".join(options.capabilities)),
    ]
    if options.hardware_compatibility == "ampere-plus":
        needs[2] = Requirement(what="compute-capability", value="8.0+")
    if options.version_compatible:
        needs[1] = Requirement(what="tensorrt-version", value=f"{major(version)}.*")
    gpu = None if options.vendor.builds_without_gpu else serving(find_gpus(), options.capabilities)
    if gpu is not None:
        needs.append(Requirement(what="built-on", value=gpu.fingerprint))
        if options.hardware_compatibility == "none":
            needs.append(Requirement(what="gpu", value=gpu.name))
    return tuple(needs)


def admit(engine: Engine, vendor: Product) -> Gpu:
    """The GPU that the engine may run on. CUDA is asked first: without a GPU the vendor's loader would crash.

    Raises:
        EngineError: no driver, another product, version or GPU; with what to do.
    """
    needs = {need.what: need.value for need in engine.requires}
    product, version = needs.get("tensorrt-product", vendor.name), needs.get("tensorrt-version", "")
    if product != vendor.name:
        raise EngineError(f"the engine is {product}'s, the target says {vendor.name}", hint=_REBUILD)
    here = installed_version(vendor)
    if here is None:
        hint = f"pip install 'qpipe-tensorrt[{vendor.extra}]'"
        raise EngineError(f"the engine needs {vendor.module} {version}, which is not installed", hint=hint)
    if not _same_version(version, here):
        hint = f"install {vendor.module} {version}, or build the engine again"
        raise EngineError(f"the engine was built by {vendor.module} {version}, here is {here}", hint=hint)
    gpus = find_gpus()
    if isinstance(gpus, NoGpu):
        raise EngineError(f"not measured: {gpus.reason}", hint=gpus.hint)
    return matching_gpu(gpus, needs)


def _same_version(built: str, here: str) -> bool:
    if built.endswith(".*"):
        return f"{major(here)}.*" == built
    return built in ("", here)


def matching_gpu(gpus: tuple[Gpu, ...], needs: Mapping[str, str]) -> Gpu:
    """The first GPU that meets the requirements `compute-capability` and `gpu`.

    Raises:
        EngineError: none does; with those that are here.
    """
    wanted, name = needs.get("compute-capability", ""), needs.get("gpu")
    for gpu in gpus:
        if _serves(gpu.capability, wanted) and name in (None, gpu.name):
            return gpu
    found = "; ".join(f"{gpu.name} ({gpu.capability})" for gpu in gpus)
    raise EngineError(
        f"the engine needs {name or 'a GPU'} of compute capability {wanted}; here: {found}", hint=_REBUILD
    )


def _serves(here: str, wanted: str) -> bool:
    if wanted.endswith("+"):
        return capability.number(here) >= capability.number(wanted.removesuffix("+"))
    return wanted == "" or here in wanted.split()
