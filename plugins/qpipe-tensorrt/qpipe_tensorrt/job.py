"""What the builder's process is given and gives back: plain values, since it starts anew for every build.

A dataclass would load `inspect` there, a tenth of a small network's whole build; so these are named tuples.
"""

from __future__ import annotations

import marshal
from typing import NamedTuple

Span = tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""A dynamic input with its smallest, usual and largest shape."""


class Demand(NamedTuple):
    """A node, and the type that its graph asks it to calculate in."""

    node: str
    dtype: str
    """`Int8`, `FP8`, `Half`, `BFloat16`, `Int4` (weights alone), or `Float`."""
    weight_only: bool = False


class Job(NamedTuple):
    """One build."""

    graph: str
    """Path of the model, from the working folder."""
    module: str
    extra: str
    capabilities: tuple[str, ...]
    ahead_of_time: bool
    """The builder is told the capabilities; else it measures on the GPU that has the first one."""
    flags: tuple[tuple[str, bool], ...]
    """Builder flags, on or off."""
    workspace_bytes: int | None
    optimization_level: int | None
    compatibility: str
    """Member of `HardwareCompatibilityLevel`."""
    profiles: tuple[tuple[Span, ...], ...]
    cache: str
    """Path of the timing cache, or an empty text."""
    in_turn: bool
    """On one CPU, first in first out."""


class Reply(NamedTuple):
    """What one build tells; the engine's bytes lie in the folder of the request."""

    demands: tuple[Demand, ...]
    dump: str
    warnings: tuple[str, ...]
    profiles: int
    version: str
    seconds: float
    """Wall time of parsing and building, without the start of the process."""
    cpu_seconds: float
    peak_rss_bytes: int
    in_turn: bool
    """Whether the system granted one CPU, first in first out."""


class Refusal(NamedTuple):
    """An error of ours, to be raised by the other half: the name of its class, message and hint."""

    error: str
    message: str
    hint: str


def packed(outcome: Reply | Refusal) -> bytes:
    """The outcome on its way to the other half."""
    if isinstance(outcome, Refusal):
        return marshal.dumps(tuple(outcome))
    demands = tuple((demand.node, demand.dtype, demand.weight_only) for demand in outcome.demands)
    return marshal.dumps((demands, *outcome[1:]))


def unpacked(data: bytes) -> Reply | Refusal:
    """What `packed` was given."""
    values = marshal.loads(data)
    if len(values) == len(Refusal._fields):
        return Refusal._make(values)
    demands, *others = values
    return Reply._make((tuple(Demand._make(demand) for demand in demands), *others))
