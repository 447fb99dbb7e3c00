"""Parameters of gates and stages against the frozen dataclass of their type."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache

from pydantic import TypeAdapter, ValidationError

from qpipe.config.document import KeyPath
from qpipe.config.problems import Problem, dotted, problems_of
from qpipe.errors import nearest


def read_params(kind: type[object], params: Mapping[str, object], at: KeyPath) -> object | tuple[Problem, ...]:
    """The parameters as their dataclass, or what is wrong with them.

    Unknown keys, nested ones too, are named with the nearest known one; values are strict (no text for a number).
    """
    known = tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()
    if unknown := tuple(_unknown(name, known, at) for name in params if name not in known):
        return unknown
    try:
        adapter = _adapter(kind)  # type: ignore[arg-type]  # mypy takes the class for one of its instances
        found = adapter.validate_json(json.dumps(dict(params)), strict=True)
    except ValidationError as error:
        return problems_of(error, {}, at)
    return tuple(_unknown_inside(params, found, at)) or found


@cache  # to make one takes longer than all that it reads
def _adapter(kind: type[object]) -> TypeAdapter[object]:
    return TypeAdapter(kind)


def _unknown_inside(given: object, found: object, at: KeyPath) -> Iterator[Problem]:
    """Keys that pydantic passes over in silence: those of nested dataclasses."""
    if isinstance(given, Mapping) and is_dataclass(found):
        known = tuple(field.name for field in fields(found))
        for name, value in given.items():
            if name not in known:
                yield _unknown(name, known, at)
            else:
                yield from _unknown_inside(value, getattr(found, name), (*at, name))
    elif isinstance(given, Mapping) and isinstance(found, Mapping):
        for name, value in given.items():
            yield from _unknown_inside(value, found.get(name), (*at, name))
    elif isinstance(given, list) and isinstance(found, tuple | list):
        for number, (value, inner) in enumerate(zip(given, found, strict=True)):
            yield from _unknown_inside(value, inner, (*at, number))


def _unknown(name: str, known: tuple[str, ...], at: KeyPath) -> Problem:
    return Problem(
        at=(*at, name),
        message=f"unknown key {name!r} in {dotted(at)}{nearest(name, known)}",
        hint=f"known keys: {', '.join(known) or 'none'}",
    )
