"""Columns beside the inputs, each read when somebody asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from qpipe.data.sources import Array


class Columns(Mapping[str, Array]):
    """Columns by name. A file may hold more than anybody asks for, and more than memory does."""

    def __init__(self, names: tuple[str, ...], read: Callable[[str], Array]) -> None:
        self._names = names
        self._read = read
        self._kept: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._kept:
            self._kept[name] = self._read(name)
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names
