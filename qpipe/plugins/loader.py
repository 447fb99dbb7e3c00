"""Our own loader: a plugin that cannot be loaded is a line in a list, and takes nothing down with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

import pluggy

from qpipe.plugins import hookspecs, origin
from qpipe.plugins.calls import banners_aside
from qpipe.plugins.origin import PluginInfo, PluginProblem, problem
from qpipe.plugins.registry import Registry
from qpipe.plugins.validation import complain
from qpipe.version import __version__

CORE = EntryPoint(name="core", value="qpipe.builtins", group=hookspecs.GROUP)
"""What the core itself brings is a plugin like any other."""


def load_plugins(extra: Sequence[object] = ()) -> Registry:
    """All installed plugins (entry points in group `qpipe`), those of the core, and objects that the caller gives."""
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    plugins: list[PluginInfo] = []
    problems: list[PluginProblem] = []
    for source in _sources(extra):
        found = _register(manager, source)
        if isinstance(found, PluginProblem):
            problems.append(found)
        else:
            plugins.append(found)
    return Registry(manager=manager, plugins=tuple(plugins), load_problems=tuple(problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    info: PluginInfo
    entry: EntryPoint | None = None
    plugin: object = None


def _sources(extra: Sequence[object]) -> Iterator[_Source]:
    yield _Source(info=PluginInfo(name=CORE.name, distribution=origin.CORE, version=__version__), entry=CORE)
    for entry in sorted(entry_points(group=hookspecs.GROUP), key=lambda entry: (entry.name, entry.value)):
        name, version = (entry.dist.name, entry.dist.version) if entry.dist else ("?", "?")
        yield _Source(info=PluginInfo(name=entry.name, distribution=name, version=version), entry=entry)
    for plugin in extra:
        name = str(getattr(plugin, "__name__", type(plugin).__name__))
        yield _Source(info=PluginInfo(name=name, distribution="this process", version=""), plugin=plugin)


def _register(manager: pluggy.PluginManager, source: _Source) -> PluginInfo | PluginProblem:
    info = source.info
    try:
        with banners_aside():
            plugin = source.entry.load() if source.entry else source.plugin
    except (Exception, SystemExit) as error:  # noqa: BLE001  (importing it runs anybody's code)
        what = source.entry.value if source.entry else info.name
        return problem(info, f"cannot import {what}: {type(error).__name__}: {error}", _import_hint(info, error))
    if complaint := complain(plugin):
        return problem(info, complaint.reason, complaint.hint)
    if manager.is_registered(plugin):
        return problem(info, "it is registered already under another name", "give it one entry point")
    if (taken := manager.get_plugin(info.owner)) is not None:
        return problem(info, f"a plugin of that name is there already: {taken}", "give it another name")
    manager.register(plugin, name=info.owner)
    return info


def _import_hint(info: PluginInfo, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install what provides {error.name!r}, or reinstall {info.distribution}"
    return f"reinstall or upgrade {info.distribution}, or report this to its author"
