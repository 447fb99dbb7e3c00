"""Which plugins there are, and what was wrong with those that are left out."""

from __future__ import annotations

from dataclasses import dataclass

CORE = "qpipe-core"
"""The distribution whose plugin is the core itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """A plugin that was loaded."""

    name: str
    """Its entry point's name."""
    distribution: str
    """Distribution that brought it, or `this process` for an object that the caller gave."""
    version: str

    @property
    def owner(self) -> str:
        """Who owns what it brings, for messages."""
        return f"{self.distribution} (plugin {self.name})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginProblem:
    """A plugin, or one hook of it, that was left out; nothing else is touched by that."""

    name: str
    distribution: str
    version: str
    reason: str
    hint: str


def problem(plugin: PluginInfo, reason: str, hint: str) -> PluginProblem:
    """A problem of one plugin, on one line."""
    return PluginProblem(
        name=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
        reason=" ".join(reason.split()),
        hint=hint,
    )
