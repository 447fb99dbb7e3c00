"""Parameters of gates and stages against the frozen dataclass of their type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from pydantic import TypeAdapter, ValidationError

from qpipe.config.document import KeyPath
from qpipe.config.problems import Problem, dotted, problems_of
from qpipe.errors import nearest


def read_params(kind: type[object], params: Mapping[str, object], at: KeyPath) -> object | tuple[Problem, ...]:
    """The parameters as their dataclass, or what is wrong with them.

    Unknown keys are named with the nearest known one; values are strict (no text for a number).
    """
    known = tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()
    unknown = tuple(
        Problem(
            at=(*at, name),
            message=f"unknown key {name!r} in {dotted(at)}{nearest(name, known)}",
            hint=f"known keys: {', '.join(known) or 'none'}",
        )
        for name in params
        if name not in known
    )
    if unknown:
        return unknown
    try:
        return TypeAdapter(kind).validate_json(json.dumps(dict(params)), strict=True)
    except ValidationError as error:
        return problems_of(error, {}, at)
