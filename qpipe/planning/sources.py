"""Digests of our own code, so that a cache never outlives the code that filled it."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


@cache
def source_digest(*rooms: str) -> str:
    """SHA-256 over sources of the core, rooms (`quant`) or modules (`records/cell.py`): 16 hexadecimal characters."""
    root = Path(__file__).parents[1]
    found = hashlib.sha256()
    for room in rooms:
        place = root / room
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]
