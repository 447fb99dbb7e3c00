"""Optimization profiles from the pipeline's shape ranges."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qpipe.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpipe.records.tensors import ShapeRange
    from qpipe_tensorrt.api import Builder, IBuilderConfig, INetworkDefinition, ITensor

Profile = tuple["ShapeRange", ...]
"""One range per dynamic input."""


def plan_profiles(ranges: tuple[ShapeRange, ...], batch_sizes: Sequence[int], kind: str) -> tuple[Profile, ...]:
    """Profiles to build, the most general first; a name that stands k times in `ranges` makes k profiles.

    `per-batch` adds one per batch size with that size fixed: its kernels are chosen for that size alone.
    """
    names = tuple(dict.fromkeys(item.name for item in ranges))
    by_name = {name: [item for item in ranges if item.name == name] for name in names}
    count = max((len(items) for items in by_name.values()), default=0)
    profiles = [tuple(items[min(k, len(items) - 1)] for items in by_name.values()) for k in range(count)]
    if kind == "per-batch" and profiles:
        profiles += [fixed for size in batch_sizes if (fixed := _fixed(profiles[0], size)) is not None]
    return tuple(profiles)


def _fixed(profile: Profile, size: int) -> Profile | None:
    """The profile with its leading dynamic dimension fixed, or None where the size is outside its range."""
    changed = []
    for item in profile:
        if not item.low or item.low[0] == item.high[0]:
            changed.append(item)
        elif item.low[0] <= size <= item.high[0]:
            head = (size,)
            changed.append(replace(item, low=head + item.low[1:], best=head + item.best[1:], high=head + item.high[1:]))
        else:
            return None
    return tuple(changed) if tuple(changed) != profile else None


def add_profiles(
    builder: Builder, config: IBuilderConfig, network: INetworkDefinition, profiles: tuple[Profile, ...]
) -> int:
    """Give the profiles to the builder; how many it took.

    Raises:
        BuildError: a range that is not possible, with the input's name.
    """
    dynamic = {tensor.name for tensor in _inputs(network) if any(size < 0 for size in tensor.shape)}
    if not dynamic:
        return 0
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        for item in shapes:
            if item.name in dynamic:
                _check(item)
                profile.set_shape(item.name, item.low, item.best, item.high)
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"TensorRT refuses the shape ranges {_told(shapes)}")
    return len(profiles)


def _inputs(network: INetworkDefinition) -> list[ITensor]:
    return [network.get_input(index) for index in range(network.num_inputs)]


def _check(item: ShapeRange) -> None:
    triples = tuple(zip(item.low, item.best, item.high, strict=False))
    same_rank = len(item.low) == len(item.best) == len(item.high)
    if not same_rank or any(not 0 <= low <= best <= high for low, best, high in triples):
        raise BuildError(f"input `{item.name}`: {_told((item,))} is not smallest ≤ usual ≤ largest")


def _told(shapes: Profile) -> str:
    return ", ".join(f"{item.name}: {item.low} / {item.best} / {item.high}" for item in shapes)
