"""What stands beside the times of a profile: clock, governor and heat of a device, and what another program says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qpipe.plugins.backend import CrossChecked, OnDevice, Session
from qpipe.records.codec import decode, encode

Conditions = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What one timed process saw, in order; empty where everything runs on this machine."""

    seen: tuple[Conditions, ...]


def device_conditions(sessions: Iterable[Session]) -> Conditions:
    """Of the first session that runs on a device, now; empty where all run here. Names begin with `device_`."""
    found = next((one.device_conditions() for one in sessions if isinstance(one, OnDevice)), ())
    return tuple((f"device_{name}", value) for name, value in found)


def cross_checks(sessions: Mapping[str, Session]) -> Conditions:
    """What other programs say of these engines, by label."""
    return tuple(
        (f"cross-check of {label}", one.cross_check())
        for label, one in sessions.items()
        if isinstance(one, CrossChecked)
    )


def save_conditions(samples: Path, seen: tuple[Conditions, ...]) -> None:
    """Write what was seen, in order, beside a file of samples."""
    _beside(samples).write_text(encode(Course(seen=seen)), "utf-8")


def load_conditions(samples: Path) -> tuple[Conditions, ...]:
    """What `save_conditions` wrote beside these samples."""
    return decode(Course, _beside(samples).read_text("utf-8")).seen


def _beside(samples: Path) -> Path:
    return samples.with_suffix(".device.json")


def course(seen: Iterable[Conditions]) -> Conditions:
    """One value each where it never changed, else all in order: `42000 → 47000`."""
    values: dict[str, list[str]] = {}
    for found in seen:
        for name, value in found:
            values.setdefault(name, []).append(value)
    return tuple((name, given[0] if len(set(given)) == 1 else " → ".join(given)) for name, given in values.items())
