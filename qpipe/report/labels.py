"""Names of cells on narrow screens: broken where they have a slash or a hyphen, not in the middle of a word."""

from __future__ import annotations

import re
from collections.abc import Iterable

AFTER_SLASH, AFTER_HYPHEN = "(?<=/)", "(?<=-)"


def label_lines(label: str, room: int, tail: str = "") -> str:
    """The label in lines of at most `room` signs where its parts are no wider; `tail` stays with the last part."""
    parts = pieces(label, AFTER_SLASH)
    parts[-1] += tail
    return filled(
        [piece for part in parts for piece in (pieces(part, AFTER_HYPHEN) if len(part) > room else [part])], room
    )


def pieces(name: str, where: str) -> list[str]:
    """The name cut at each place that the pattern `where` finds; together they are the name."""
    return [piece for piece in re.split(where, name) if piece] or [name]


def filled(parts: Iterable[str], room: int) -> str:
    """The parts in lines, as many in each as `room` signs hold."""
    first, *rest = parts
    lines = [first]
    for part in rest:
        if len(lines[-1]) + len(part) <= room:
            lines[-1] += part
        else:
            lines.append(part)
    return "\n".join(lines)
