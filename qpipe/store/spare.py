"""Objects that a store can do without: what only keys of remakable spaces lead to, and what nothing leads to."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from qpipe.store.manifest import list_files

_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
NOTHING_LEADS = ""
"""The space of objects that no key names: a killed run left them, or their key names something newer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spare:
    """Objects of one kind that can go, with the keys that would then lead nowhere."""

    space: str
    """Of the keys that lead to them, or `NOTHING_LEADS`."""
    objects: tuple[str, ...]
    keys: tuple[Path, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    space: str
    path: Path
    objects: frozenset[str]
    young: bool


def find_spare(root: Path, remakable: Collection[str], *, until_s: float) -> tuple[Spare, ...]:
    """What was made before `until_s` (seconds since the epoch) and is not needed by anything that cannot be made again.

    A key needs every object whose digest stands in its text, and an object every one that a JSON file of it names.
    Keys of a space that is not in `remakable` are never spare.
    """
    ages = {folder.name: folder.stat().st_mtime for folder in (root / "objects").glob("*")}
    known = frozenset(ages)
    keys = tuple(_keys(root, known, until_s))
    needed = {name for key in keys if key.young or key.space not in remakable for name in key.objects} | {
        name for name, made_s in ages.items() if made_s >= until_s
    }
    kept = _closure(root, needed, known)
    old = [key for key in keys if not key.young and key.space in remakable and not key.objects & kept]
    owners = {name: key.space for key in old for name in key.objects}
    spaces = {name: owners.get(name, NOTHING_LEADS) for name in known - kept}
    return tuple(
        Spare(
            space=space,
            objects=(objects := tuple(sorted(name for name, its in spaces.items() if its == space))),
            keys=tuple(key.path for key in old if key.space == space),
            size_bytes=sum(folder_bytes(root / "objects" / name) for name in objects),
        )
        for space in sorted({*spaces.values(), *(key.space for key in old)})
    )


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum((folder / name).stat().st_size for name in list_files(folder))


def _keys(root: Path, known: frozenset[str], until_s: float) -> Iterator[_Key]:
    for path in (root / "keys").glob("*/*.json"):
        named = frozenset(_DIGEST.findall(path.read_text(encoding="utf-8"))) & known
        yield _Key(space=path.parent.name, path=path, objects=named, young=path.stat().st_mtime >= until_s)


def _closure(root: Path, needed: set[str], known: frozenset[str]) -> set[str]:
    kept: set[str] = set()
    while needed:
        kept |= needed
        texts = (
            path.read_text(encoding="utf-8") for name in needed for path in (root / "objects" / name).rglob("*.json")
        )
        needed = {digest for text in texts for digest in _DIGEST.findall(text)} & known - kept
    return kept
