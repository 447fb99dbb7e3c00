"""What can be wrong with a plugin's hooks before any is called."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import pluggy

from qpipe.errors import nearest
from qpipe.plugins import hookspecs

_HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("qpipe_"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """Why a plugin is refused, and what its author should write."""

    reason: str
    hint: str


def complain(plugin: object) -> Complaint | None:
    """The first thing wrong with a plugin's hooks, or None. Calls nothing of the plugin."""
    if isinstance(plugin, type):
        hint = f"let the entry point name an object: `plugin = {plugin.__name__}()`, or a module"
        return Complaint(reason=f"{plugin.__name__} is a class", hint=hint)
    probe = pluggy.PluginManager(hookspecs.GROUP)
    probe.add_hookspecs(hookspecs)
    count = 0
    for name in dir(plugin):
        options = probe.parse_hookimpl_opts(plugin, name)
        if options is None:
            if name in _HOOKS:
                return Complaint(reason=f"{name} is not marked as a hook", hint="write `@hookimpl` above it")
            continue
        count += 1
        if name not in _HOOKS:
            reason = f"there is no hook {name}{nearest(name, _HOOKS)}"
            return Complaint(reason=reason, hint=f"hooks: {', '.join(_HOOKS)}")
        if options["wrapper"] or options["hookwrapper"]:
            return Complaint(reason=f"{name} is a wrapper", hint="qpipe calls plain hooks only")
    if not count:
        return Complaint(reason="it has no hooks", hint=f"implement one of {', '.join(_HOOKS)}")
    return _check_signatures(probe, plugin)


def _check_signatures(probe: pluggy.PluginManager, plugin: object) -> Complaint | None:
    """Pluggy's own validation, in a manager that is thrown away: a refused plugin leaves no half of itself."""
    try:
        probe.register(plugin)
    except pluggy.PluginValidationError as error:
        name = next((hook for hook in _HOOKS if repr(hook) in str(error)), "a hook")
        last = str(error).strip().splitlines()[-1]
        return Complaint(reason=f"{name} has a wrong signature: {last}", hint=_signature_hint(name))
    return None


def _signature_hint(name: str) -> str:
    spec = getattr(hookspecs, name, None)
    if spec is None:
        return f"hooks: {', '.join(_HOOKS)}"
    return f"write `def {name}({', '.join(inspect.signature(spec).parameters)})`"
