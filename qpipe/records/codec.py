"""Records to JSON and back, strictly; and the digest of a record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


@lru_cache(maxsize=64)
def _adapter(kind: Hashable) -> TypeAdapter[object]:
    from pydantic import TypeAdapter

    return TypeAdapter(cast("type[object]", kind))


def plain(value: object) -> object:
    """The record as plain JSON values (dicts, lists, strings, numbers)."""
    return _adapter(cast("Hashable", type(value))).dump_python(value, mode="json")


def encode(value: object) -> str:
    """Canonical JSON of a record: sorted keys, no spaces; NaN and infinity are refused."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def decode(kind: type[T], text: str | bytes) -> T:
    """A record from its JSON.

    Raises:
        pydantic.ValidationError: the text is not a record of that type.
    """
    return cast("T", _adapter(cast("Hashable", kind)).validate_json(text))


def digest(value: object) -> str:
    """SHA-256 (64 hexadecimal characters) of the canonical JSON of a record."""
    return hashlib.sha256(encode(value).encode()).hexdigest()
