"""Optimization profiles: from the pipeline's shape ranges and the target's batch sizes, or as the target says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qpipe.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qpipe.records.engine import Prepared
    from qpipe.records.tensors import ShapeRange, Signature
    from qpipe_tensorrt.options import Options

Profile = tuple["ShapeRange", ...]
"""One range per dynamic input."""


def profiles_of(prepared: Prepared, batch_sizes: Sequence[int], options: Options) -> tuple[Profile, ...]:
    """Profiles to build; each batch size of the target is served by one of them.

    Raises:
        BuildError: `options.shapes` names no input of the model, or serves not every batch size.
    """
    batched = _batched(prepared.signature)
    ranges = tuple(_widened(item, batch_sizes) if item.name in batched else item for item in prepared.shapes)
    if not options.shapes:
        return plan_profiles(ranges, batch_sizes, options.profiles)
    profiles = tuple(_completed(profile, ranges) for profile in options.shapes)
    for size in batch_sizes:
        if not any(_serves(profile, size, batched) for profile in profiles):
            raise BuildError(
                f"no profile of options.shapes serves batch size {size} of the target",
                hint="widen one of them, or leave that size out of `batch_sizes`",
            )
    return profiles


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


def _batched(signature: Signature) -> frozenset[str]:
    """Inputs whose first axis is free."""
    return frozenset(spec.name for spec in signature.inputs if spec.shape and not isinstance(spec.shape[0], int))


def _widened(item: ShapeRange, batch_sizes: Sequence[int]) -> ShapeRange:
    """A range that reaches to every batch size, with the first of them as the usual one."""
    best, high = max(item.low[0], batch_sizes[0]), max(item.high[0], *batch_sizes)
    return replace(item, best=(best, *item.best[1:]), high=(high, *item.high[1:]))


def _completed(stated: Profile, ranges: tuple[ShapeRange, ...]) -> Profile:
    """What the target says, with the range of the data for inputs that it does not name."""
    known = {item.name: item for item in ranges}
    for item in stated:
        if item.name not in known:
            raise BuildError(f"options.shapes: the model has no input `{item.name}`", hint=f"it has {', '.join(known)}")
    return tuple({**known, **{item.name: item for item in stated}}.values())


def _serves(profile: Profile, size: int, batched: frozenset[str]) -> bool:
    return all(item.low[0] <= size <= item.high[0] for item in profile if item.name in batched and item.low)
