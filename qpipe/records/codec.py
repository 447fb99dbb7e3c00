"""Records to JSON and back, strictly; and the digest of a record.

Every child process decodes what it shall do before it does anything else, so this reads dataclasses by their own
annotations: building a validator of pydantic's costs a child a quarter of its start. What users write is read by
`qpipe.config`, with pydantic and with its errors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Hashable, Iterator, Mapping
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
Reader = Callable[[object], object]


class _RecordError(ValueError):
    """Plain JSON that is not the record wanted, and where in it."""

    def __init__(self, text: str, place: str = "") -> None:
        super().__init__(f"{place}: {text}" if place else text)
        self.text = text
        self.place = place


_SCALARS = (str, int, float, bool, NoneType)


def plain(value: object) -> object:
    """The record as plain JSON values (dicts, lists, strings, numbers).

    Raises:
        TypeError: something in it is no record and no plain value.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, _SCALARS):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name)) for name in _fields(type(value))}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no part of a record: {value!r}")


def encode(value: object) -> str:
    """Canonical JSON of a record: sorted keys, no spaces; NaN and infinity are refused."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def decode(kind: type[T], text: str | bytes) -> T:
    """A record from its JSON. Keys that the record does not know are ignored.

    Raises:
        ValueError: the text is not a record of that type; the message names the place.
    """
    return cast("T", _reader(cast("Hashable", kind))(json.loads(text)))


def digest(value: object) -> str:
    """SHA-256 (64 hexadecimal characters) of the canonical JSON of a record."""
    return hashlib.sha256(encode(value).encode()).hexdigest()


def unreadable(kind: type) -> str:
    """The first field of a dataclass that `decode` could not read, and its type; empty where there is none."""
    return next(_unreadable(kind, "", ()), "")


def _unreadable(kind: Hashable, at: str, seen: tuple[Hashable, ...]) -> Iterator[str]:
    if kind in seen:
        return
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        try:
            hints = get_type_hints(kind)
        except Exception as error:  # noqa: BLE001  (annotations are anybody's text)
            yield f"{at or ', '.join(_fields(kind))}: {error}"
            return
        for name in _fields(kind):
            yield from _unreadable(hints[name], f"{at}.{name}" if at else name, (*seen, kind))
        return
    try:
        _reader(kind)
    except (TypeError, IndexError):
        yield f"{at} is {kind.__name__ if isinstance(kind, type) and not get_args(kind) else kind}"
        return
    origin, args = get_origin(kind), get_args(kind)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if args[0] is not str:
            yield f"{at}{{}} has keys that are {getattr(args[0], '__name__', args[0])}"
        yield from _unreadable(args[1], f"{at}{{}}", seen)
    elif origin is not Literal:
        inside = at if origin in (Union, UnionType) else f"{at}[]"
        for one in args:
            if one is not Ellipsis:
                yield from _unreadable(one, inside, seen)


@lru_cache(maxsize=256)
def _fields(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


@lru_cache(maxsize=256)
def _reader(kind: Hashable) -> Reader:
    """What turns plain JSON into one type."""
    if not isinstance(kind, type) or get_origin(kind) is not None:
        return _generic(kind)
    if dataclasses.is_dataclass(kind):
        return _record(kind)
    if issubclass(kind, Enum):
        return _member(kind)
    if issubclass(kind, PurePath):
        return lambda value: kind(_text(value))
    return _simple(kind)


def _simple(kind: type) -> Reader:
    if kind is float:
        return _read_float
    if kind is object:
        return _as_it_is
    if kind in _SCALARS:
        return _scalar(kind)
    raise TypeError(f"records hold no {kind.__name__}")


def _generic(kind: Hashable) -> Reader:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _choice(args)
    if origin in (Union, UnionType):
        return _union(args)
    if origin is tuple:
        return _sequence(args[0]) if args[-1] is Ellipsis else _row(args)
    if origin is list:
        return _items(args[0])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(args[1])
    raise TypeError(f"records hold no {kind}")


def _as_it_is(value: object) -> object:
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _RecordError(_unlike("str", value))
    return value


def _read_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _RecordError(_unlike("a number", value))
    return float(value)


def _scalar(kind: type) -> Reader:
    def read(value: object) -> object:
        if type(value) is not kind:
            raise _RecordError(_unlike(kind.__name__, value))
        return value

    return read


def _member(kind: type[Enum]) -> Reader:
    read = _choice(tuple(item.value for item in kind))
    return lambda value: kind(read(value))


def _choice(options: tuple[object, ...]) -> Reader:
    def read(value: object) -> object:
        if value not in options:
            raise _RecordError(_unlike(f"one of {', '.join(map(repr, options))}", value))
        return value

    return read


def _sequence(item: Hashable) -> Reader:
    def read(value: object) -> object:
        return tuple(_at(f"[{place}]", item, one) for place, one in enumerate(_list(value)))

    return read


def _items(item: Hashable) -> Reader:
    read = _sequence(item)
    return lambda value: list(cast("tuple[object, ...]", read(value)))


def _row(items: tuple[Hashable, ...]) -> Reader:
    def read(value: object) -> object:
        found = _list(value)
        if len(found) != len(items):
            raise _RecordError(_unlike(f"{len(items)} values", value))
        return tuple(_at(f"[{place}]", item, one) for place, (item, one) in enumerate(zip(items, found, strict=True)))

    return read


def _mapping(item: Hashable) -> Reader:
    def read(value: object) -> object:
        return {key: _at(f".{key}", item, one) for key, one in _object(value).items()}

    return read


def _record(kind: type) -> Reader:
    hints = get_type_hints(kind)
    types = {name: hints[name] for name in _fields(kind)}
    required = _required(kind)

    def read(value: object) -> object:
        found = _object(value)
        if missing := [name for name in required if name not in found]:
            raise _RecordError(f"{kind.__name__} lacks {', '.join(missing)}")
        return kind(**{name: _at(f".{name}", types[name], found[name]) for name in types if name in found})

    return read


def _required(kind: type) -> tuple[str, ...]:
    return tuple(
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    )


def _union(kinds: tuple[Hashable, ...]) -> Reader:
    """Records are told apart by their fields: the one that knows most of the keys; other types by being tried."""
    records = [kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)]
    others = [kind for kind in kinds if kind not in records]

    def read(value: object) -> object:
        if isinstance(value, dict) and records:
            fitting = [kind for kind in records if value.keys() >= set(_required(kind))] or records
            return _reader(max(fitting, key=lambda kind: _likeness(kind, value)))(value)
        for kind in others:
            try:
                return _reader(kind)(value)
            except ValueError:
                continue
        raise _RecordError(_unlike(" or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds), value))

    return read


def _likeness(kind: type, value: dict[str, object]) -> tuple[int, int]:
    known = set(_fields(kind))
    return len(known & value.keys()), -len(known - value.keys())


def _at(place: str, kind: Hashable, value: object) -> object:
    try:
        return _reader(kind)(value)
    except ValueError as error:
        inner = error if isinstance(error, _RecordError) else _RecordError(str(error))
        raise _RecordError(inner.text, place + inner.place) from None


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise _RecordError(_unlike("a list", value))
    return value


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _RecordError(_unlike("an object", value))
    return value


def _unlike(wanted: str, value: object) -> str:
    return f"{json.dumps(value)[:80]} is not {wanted}"
