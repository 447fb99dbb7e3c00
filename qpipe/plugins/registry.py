"""The registry: every backend, target, stage, gate and metric by name. Each kind is loaded at its first use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from qpipe.plugins.calls import call_within
from qpipe.plugins.code import PYTHON, SOURCES, code_digest, module_of
from qpipe.plugins.kinds import BACKENDS, GATES, METRICS, STAGES, TARGETS
from qpipe.plugins.origin import CORE, PluginInfo, PluginProblem
from qpipe.plugins.shelf import Kind, Owned, Shelf, fill_shelf

if TYPE_CHECKING:
    import pluggy

    from qpipe.plugins.backend import Backend
    from qpipe.plugins.gate import GateType
    from qpipe.plugins.metric import Metric
    from qpipe.plugins.stage import StageType
    from qpipe.records.result import CellResult
    from qpipe.records.target import Target

T = TypeVar("T")
Hook = tuple[PluginInfo, Callable[..., object], tuple[str, ...]]
"""A plugin's function for a hook, with the names of the arguments that it takes."""

PATIENCE_S = 60.0
"""For one call of a notification."""


class Registry:
    """What all plugins bring. A name that two plugins claim is refused when it is used; it is a problem before."""

    def __init__(
        self,
        *,
        manager: pluggy.PluginManager,
        plugins: tuple[PluginInfo, ...],
        load_problems: tuple[PluginProblem, ...],
    ) -> None:
        self._manager = manager
        self._load_problems = load_problems
        self._hanging: set[str] = set()
        self.plugins = plugins
        """Plugins that were loaded, the core's first."""

    def backend(self, name: str) -> Backend:
        """Raises PluginError for an unknown name, with the nearest one."""
        return self._backends.get(name)

    def target(self, name: str) -> Target:
        """Raises TargetError for an unknown name, with the nearest one."""
        return self._targets.get(name)

    def stage(self, name: str) -> StageType[object]:
        """Raises ConfigError for an unknown name, with the nearest one."""
        return self._stages.get(name)

    def gate(self, name: str) -> GateType[object]:
        """Raises ConfigError for an unknown name, with the nearest one."""
        return self._gates.get(name)

    def metric(self, name: str) -> Metric:
        """Raises ConfigError for an unknown name, with the nearest one."""
        return self._metrics.get(name)

    def code_of_backend(self, name: str) -> str:
        """Distribution, version and code digest of the plugin that brings it: an ingredient of the build key."""
        return self._code(self._backends.find(name), lambda backend: (type(backend),))

    def code_of_stage(self, name: str) -> str:
        """The same of a stage, for the prepare key; empty for the core's, whose rooms are ingredients themselves."""
        return self._code(self._stages.find(name), _code_of_stage)

    def code_of_metric(self, name: str) -> str:
        """The same of a metric, for the measure key; empty for the core's."""
        return self._code(self._metrics.find(name), _code_of_metric)

    def python_code(self) -> dict[str, str]:
        """The same of every stage and metric that plugins bring, by kind and name, from Python files alone.

        It is the same on machines of several architectures, where compiled files differ.
        """
        sources = (PYTHON,)
        found = {
            **{f"stage {one.name}": self._code(one, _code_of_stage, sources) for one in self._stages.owned},
            **{f"metric {one.name}": self._code(one, _code_of_metric, sources) for one in self._metrics.owned},
        }
        return {name: code for name, code in found.items() if code}

    @property
    def backends(self) -> Mapping[str, Backend]:
        """All backends by name."""
        return self._backends.values

    @property
    def targets(self) -> Mapping[str, Target]:
        """All targets by name."""
        return self._targets.values

    @property
    def stages(self) -> Mapping[str, StageType[object]]:
        """All stages by name."""
        return self._stages.values

    @property
    def gates(self) -> Mapping[str, GateType[object]]:
        """All gate types by name."""
        return self._gates.values

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """All metrics by name."""
        return self._metrics.values

    @property
    def problems(self) -> tuple[PluginProblem, ...]:
        """Everything that was left out and why. Calls every hook."""
        return (*self._load_problems, *(trouble for shelf in self._shelves() for trouble in shelf.problems))

    def brings(self, plugin: PluginInfo) -> tuple[str, ...]:
        """What a plugin contributes, as `backend onnxruntime`. Calls every hook."""
        return tuple(
            f"{shelf.kind.word} {owned.name}"
            for shelf in self._shelves()
            for owned in _owned(shelf)
            if owned.plugin == plugin
        )

    def cell_finished(self, result: CellResult) -> tuple[str, ...]:
        """Tell every plugin; returns a warning for each hook that raised, or that hangs: that one is not told again."""
        warnings = []
        given = {"result": result}
        for plugin, function, names in self._hooks("qpipe_cell_finished"):
            if plugin.owner in self._hanging:
                continue
            call = partial(function, *(given[name] for name in names))
            if trouble := call_within(call, seconds=PATIENCE_S):
                warnings.append(f"qpipe_cell_finished of {plugin.owner} {trouble} for {result.label}")
                self._hanging |= {plugin.owner} if trouble.startswith("was still busy") else set()
        return tuple(warnings)

    @cached_property
    def _backends(self) -> Shelf[Backend]:
        return self._fill(BACKENDS)

    @cached_property
    def _targets(self) -> Shelf[Target]:
        return self._fill(TARGETS)

    @cached_property
    def _stages(self) -> Shelf[StageType[object]]:
        return self._fill(STAGES)

    @cached_property
    def _gates(self) -> Shelf[GateType[object]]:
        return self._fill(GATES)

    @cached_property
    def _metrics(self) -> Shelf[Metric]:
        return self._fill(METRICS)

    def _code(
        self, owned: Owned[T], parts: Callable[[T], tuple[object, ...]], sources: tuple[str, ...] = SOURCES
    ) -> str:
        plugin = owned.plugin
        if plugin.distribution == CORE:
            return ""
        brought = self._manager.get_plugin(plugin.owner)
        home = brought.__name__ if isinstance(brought, ModuleType) else module_of(brought)
        digest = code_digest(
            home, *sorted({module_of(part) for part in parts(owned.value)} - {"builtins"}), sources=sources
        )
        return f"{plugin.distribution} {plugin.version}+{digest}"

    def _shelves(self) -> tuple[Shelf[object], ...]:
        return (self._backends, self._targets, self._stages, self._gates, self._metrics)  # type: ignore[return-value]  # read only

    def _fill(self, kind: Kind[T]) -> Shelf[T]:
        return fill_shelf(kind, ((plugin, function) for plugin, function, _ in self._hooks(kind.hook)))

    def _hooks(self, name: str) -> Iterator[Hook]:
        """The plugins that have a hook, in order of registration."""
        owners = {plugin.owner: plugin for plugin in self.plugins}
        for found in getattr(self._manager.hook, name).get_hookimpls():
            plugin = owners[found.plugin_name]
            if os.environ.get("QPIPE_TRACE") == "1":
                sys.stderr.write(f"qpipe: {name} of {plugin.owner}\n")
            yield plugin, found.function, tuple(found.argnames)


def _code_of_stage(stage: StageType[object]) -> tuple[object, ...]:
    return (stage.apply,)


def _code_of_metric(metric: Metric) -> tuple[object, ...]:
    return (metric.measure, metric.aggregate)


def _owned(shelf: Shelf[T]) -> tuple[Owned[T], ...]:
    return shelf.owned
