"""All contributions of one kind: who brought them, and what was refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from qpipe.errors import PluginError, QpipeError, nearest
from qpipe.plugins.calls import prints_aside
from qpipe.plugins.origin import PluginInfo, PluginProblem, problem

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[T]):
    """One kind of contribution and the hook that yields it."""

    word: str
    hook: str
    error: type[QpipeError]
    """Raised for a name that nobody brought."""
    complain: Callable[[object], str | None]
    """Why an object is not of this kind, or None."""
    adopt: Callable[[T, PluginInfo], T] = lambda value, _plugin: value
    """The contribution with its owner noted, where it has a place for that."""
    owner: Callable[[T, PluginInfo], str] = lambda _value, plugin: plugin.owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned(Generic[T]):
    """A contribution with the plugin that brought it."""

    name: str
    value: T
    plugin: PluginInfo
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf(Generic[T]):
    """Contributions of one kind by name; a name that two plugins claim belongs to neither."""

    kind: Kind[T]
    owned: tuple[Owned[T], ...]
    problems: tuple[PluginProblem, ...]

    @property
    def values(self) -> Mapping[str, T]:
        """Those whose names are unique, in order of registration."""
        names = [found.name for found in self.owned]
        return {found.name: found.value for found in self.owned if names.count(found.name) == 1}

    def get(self, name: str) -> T:
        """The contribution of that name; raises as `find`."""
        return self.find(name).value

    def find(self, name: str) -> Owned[T]:
        """The contribution of that name with the plugin that brings it.

        Raises:
            PluginError: two plugins claim the name; both are named.
            QpipeError: of the kind's own type, where nobody brought it; with the nearest name.
        """
        claims = [found for found in self.owned if found.name == name]
        if len(claims) == 1:
            return claims[0]
        word = self.kind.word
        if claims:
            raise PluginError(
                f"{word} {name!r} is claimed by {_both(claims)}", hint="uninstall one of them, or rename it there"
            )
        known = self.values
        hint = f"there are {', '.join(sorted(known))}" if known else f"no plugin brings a {word}"
        broken = "; ".join(f"{trouble.distribution}: {trouble.reason}" for trouble in self.problems)
        raise self.kind.error(
            f"unknown {word} {name!r}{nearest(name, known)}", hint=f"{hint}; left out: {broken}" if broken else hint
        )


def fill_shelf(kind: Kind[T], calls: Iterable[tuple[PluginInfo, Callable[[], object]]]) -> Shelf[T]:
    """Call one hook of every plugin that has it. What one yields counts as a whole or not at all."""
    owned: list[Owned[T]] = []
    problems: list[PluginProblem] = []
    for plugin, call in calls:
        found = _collect(kind, plugin, call)
        if isinstance(found, PluginProblem):
            problems.append(found)
        else:
            owned.extend(found)
    return Shelf(kind=kind, owned=tuple(owned), problems=(*problems, *_duplicates(kind, owned)))


def _collect(kind: Kind[T], plugin: PluginInfo, call: Callable[[], object]) -> list[Owned[T]] | PluginProblem:
    try:
        with prints_aside():
            values = list(cast("Iterable[object]", call()))
    except QpipeError as error:
        return problem(plugin, error.message, error.hint)
    except (Exception, SystemExit) as error:  # noqa: BLE001  (a hook is anybody's code)
        reason = f"{kind.hook} raised {type(error).__name__}: {error}"
        return problem(plugin, reason, f"upgrade {plugin.distribution}, or report this to its author")
    for value in values:
        if complaint := kind.complain(value):
            return problem(plugin, f"{kind.hook} gave {value!r:.100}: {complaint}", f"each must be a {kind.word}")
    return [_own(kind, kind.adopt(cast("T", value), plugin), plugin) for value in values]


def _own(kind: Kind[T], value: T, plugin: PluginInfo) -> Owned[T]:
    return Owned(name=str(getattr(value, "name", "")), value=value, plugin=plugin, owner=kind.owner(value, plugin))


def _duplicates(kind: Kind[T], owned: list[Owned[T]]) -> Iterable[PluginProblem]:
    by_name: dict[str, list[Owned[T]]] = {}
    for found in owned:
        by_name.setdefault(found.name, []).append(found)
    for name, claims in by_name.items():
        if len(claims) > 1:
            reason = f"{kind.word} {name!r} is claimed by {_both(claims)}"
            yield problem(claims[-1].plugin, reason, "uninstall one of them, or rename it there")


def _both(claims: list[Owned[T]]) -> str:
    return " and by ".join(claim.owner for claim in claims)
