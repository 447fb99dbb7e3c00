"""The `options:` of a target as the frozen dataclass of its backend: one reading, and one wording, for all backends."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TypeVar, cast

from qpipe.errors import TargetError, nearest
from qpipe.records import codec
from qpipe.records.target import Target

T = TypeVar("T")


def read_options(kind: type[T], target: Target) -> T:
    """The options of a target. Values are strict; what belongs together is refused in `__post_init__` (`ValueError`).

    Args:
        kind: a frozen dataclass: each field an option, of the types that records hold (text, numbers, `Literal`,
            tuples and mappings of them); one without a default must be given.
        target: its `options` are read.

    Raises:
        TargetError: an unknown key, a missing one, or a value that cannot be, by its name.
    """
    known = [field.name for field in fields(cast("type", kind))]
    for key in target.options:
        if key not in known:
            raise TargetError(
                f"target {target.name}: backend {target.backend} has no option {key!r}{nearest(key, known)}",
                hint=f"options: {', '.join(known) or 'none'}",
            )
    try:
        return codec.decode(kind, json.dumps(codec.plain(target.options)))
    except (TypeError, ValueError) as error:
        where = str(error).lstrip(".").replace(f"{kind.__name__} lacks", "missing")
        raise TargetError(f"target {target.name}: options: {where}", hint=f"options: {', '.join(known)}") from error
