"""The two products: which package, which GPUs, and what is installed here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One of NVIDIA's two TensorRT products.

    Source: NVIDIA TensorRT 11 and TensorRT for RTX 1.7 support matrices; the RTX list was tried with the builder.
    """

    name: str
    module: str
    distributions: tuple[str, ...]
    extra: str
    capabilities: tuple[str, ...]
    builds_without_gpu: bool
    oldest: int
    """Oldest major version that this plugin speaks to."""


RTX = Product(
    name="tensorrt-rtx",
    module="tensorrt_rtx",
    distributions=("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
    extra="rtx",
    capabilities=("7.5", "8.0", "8.6", "8.9", "12.0", "12.1"),
    builds_without_gpu=True,
    oldest=1,
)
ENTERPRISE = Product(
    name="tensorrt",
    module="tensorrt",
    distributions=("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    extra="enterprise",
    capabilities=("7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1"),
    builds_without_gpu=False,
    oldest=11,
)
PRODUCTS = {product.name: product for product in (RTX, ENTERPRISE)}


def installed_version(product: Product) -> str | None:
    """Version of the installed package, or None; nothing of the vendor's is imported."""
    if find_spec(product.module) is None:
        return None
    for name in product.distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def major(version: str) -> int:
    """First number of a version, or 0 where it has none."""
    head = version.split(".", 1)[0]
    return int(head) if head.isdigit() else 0
