"""The `options:` of a TensorRT target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, cast

from qpipe.errors import TargetError, nearest
from qpipe.records.tensors import ShapeRange
from qpipe_tensorrt import capability
from qpipe_tensorrt.products import PRODUCTS, Product

if TYPE_CHECKING:
    from qpipe.records.target import Target

Compatibility = Literal["none", "same-capability", "ampere-plus"]
_COMPATIBILITIES = ("none", "same-capability", "ampere-plus")
_PROFILES = ("range", "per-batch")
_SHAPES = "a list of profiles, each {input: {min: [1, 3, 224, 224], opt: [8, 3, 224, 224], max: [32, 3, 224, 224]}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a target may say about its GPU and about the builder."""

    product: str
    compute_capability: str
    also: tuple[str, ...] = ()
    """Further capabilities in the same engine (TensorRT for RTX)."""
    precisions: tuple[str, ...] = ()
    """Precisions of the hardware; empty means all that the capability has."""
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    """0 to 5; None leaves the builder's default."""
    profiles: Literal["range", "per-batch"] = "range"
    """One optimization profile over the whole range, or one more for each batch size of the target."""
    shapes: tuple[tuple[ShapeRange, ...], ...] = ()
    """Profiles in the target's own words, instead of `profiles`."""
    builds: int = 1
    """How often to build; the first one ships, the spread is reported."""
    reproducible: bool = False
    """Build on one CPU, first in first out, so that the builder's threads always take the same turns (RTX: `true`)."""
    tf32: bool = True
    sparse_weights: bool = False
    strict_nans: bool = False
    weight_streaming: bool = False
    version_compatible: bool = False
    hardware_compatibility: Compatibility = "none"
    timing_cache: bool = True
    """Keep measured tactics in the store, per device, driver and version (`tensorrt` alone)."""
    simulate: bool = False
    """Without a GPU, run the graph on the CPU: outputs are `simulated`, latency is not measured."""
    cuda_graph: bool = True

    @property
    def vendor(self) -> Product:
        """The product that builds and runs."""
        return PRODUCTS[self.product]

    @property
    def capabilities(self) -> tuple[str, ...]:
        """All capabilities that the engine is built for, the target's own first."""
        return (self.compute_capability, *self.also)


def read_options(target: Target) -> Options:
    """Options of a target, checked.

    Raises:
        TargetError: a key or a value that cannot be, with what would be right.
    """
    known = {field.name for field in fields(Options)}
    for key in target.options:
        if key not in known:
            raise TargetError(
                f"target {target.name}: unknown option `{key}`{nearest(key, known)}",
                hint=f"one of {', '.join(sorted(known))}",
            )
    return _Reader(target.name, target.options).options()


class _Reader:
    """Reads one mapping; every complaint names target and key."""

    def __init__(self, target: str, given: Mapping[str, object]) -> None:
        self._target = target
        self._given = given

    def options(self) -> Options:
        product = self._choice("product", tuple(PRODUCTS), None)
        return Options(
            product=product,
            compute_capability=self._capability(self._given.get("compute_capability"), "compute_capability"),
            also=tuple(self._capability(item, "also") for item in self._items("also")),
            precisions=self._precisions(),
            workspace_bytes=self._whole("workspace_bytes", 1, 2**63 - 1),
            optimization_level=self._whole("optimization_level", 0, 5),
            profiles=cast("Literal['range', 'per-batch']", self._choice("profiles", _PROFILES, "range")),
            shapes=tuple(self._profile(item) for item in self._items("shapes")),
            builds=self._whole("builds", 1, 100) or 1,
            reproducible=self._flag("reproducible", default=PRODUCTS[product].builds_without_gpu),
            tf32=self._flag("tf32", default=True),
            sparse_weights=self._flag("sparse_weights"),
            strict_nans=self._flag("strict_nans"),
            weight_streaming=self._flag("weight_streaming"),
            version_compatible=self._flag("version_compatible"),
            hardware_compatibility=cast(
                "Compatibility", self._choice("hardware_compatibility", _COMPATIBILITIES, "none")
            ),
            timing_cache=self._flag("timing_cache", default=True),
            simulate=self._flag("simulate"),
            cuda_graph=self._flag("cuda_graph", default=True),
        )

    def _wrong(self, key: str, right: str) -> TargetError:
        found = repr(self._given[key]) if key in self._given else "missing"
        return TargetError(f"target {self._target}: options.{key} is {found}", hint=right)

    def _choice(self, key: str, names: tuple[str, ...], default: str | None) -> str:
        value = self._given.get(key, default)
        if not isinstance(value, str) or value not in names:
            raise self._wrong(key, f"one of {', '.join(names)}")
        return value

    def _capability(self, value: object, key: str) -> str:
        text = str(value) if isinstance(value, str | float) else ""
        try:
            capability.number(text)
        except ValueError:
            raise self._wrong(key, 'a compute capability in quotes, e.g. "8.9"') from None
        return text

    def _items(self, key: str) -> tuple[object, ...]:
        value = self._given.get(key, ())
        if not isinstance(value, list | tuple):
            raise self._wrong(key, "a list")
        return tuple(value)

    def _profile(self, item: object) -> tuple[ShapeRange, ...]:
        if not isinstance(item, Mapping) or not item:
            raise self._wrong("shapes", _SHAPES)
        return tuple(self._range(str(name), sizes) for name, sizes in item.items())

    def _range(self, name: str, given: object) -> ShapeRange:
        if not isinstance(given, Mapping) or set(given) != {"min", "opt", "max"}:
            raise self._wrong("shapes", _SHAPES)
        sizes = [given[key] for key in ("min", "opt", "max")]
        if not all(isinstance(size, list | tuple) and all(type(one) is int for one in size) for size in sizes):
            raise self._wrong("shapes", _SHAPES)
        low, best, high = (tuple(size) for size in sizes)
        return ShapeRange(name=name, low=low, best=best, high=high)

    def _precisions(self) -> tuple[str, ...]:
        names = tuple(str(item) for item in self._items("precisions"))
        if not set(names) <= set(capability.PRECISIONS):
            raise self._wrong("precisions", f"some of {', '.join(capability.PRECISIONS)}")
        return names

    def _whole(self, key: str, low: int, high: int) -> int | None:
        value = self._given.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._wrong(key, f"a whole number from {low} to {high}")
        return value

    def _flag(self, key: str, *, default: bool = False) -> bool:
        value = self._given.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value
