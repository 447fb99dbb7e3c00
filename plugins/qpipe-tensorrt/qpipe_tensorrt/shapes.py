"""Optimization profiles from the pipeline's shape ranges."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpipe.records.tensors import ShapeRange

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
