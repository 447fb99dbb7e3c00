"""The five kinds of contribution, and what an object must be to count as one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import is_dataclass, replace

from qpipe.errors import ConfigError, PluginError, TargetError
from qpipe.plugins.backend import Backend
from qpipe.plugins.gate import GateType
from qpipe.plugins.metric import Metric
from qpipe.plugins.origin import PluginInfo
from qpipe.plugins.shelf import Kind
from qpipe.plugins.stage import StageType
from qpipe.records.codec import decode, encode, unreadable
from qpipe.records.target import Target

PARAMETERS = (
    "numbers, text, paths, Literal, enums, dataclasses, None; tuples and lists of them, and mappings from text to them"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DEFAULT_OWNER = Target(name="", backend="").owner


def _complain_of_backend(value: object) -> str | None:
    if isinstance(value, type):
        return "it is a class, not an object"
    missing = [name for name in ("check", "scheme", "build", "open") if not callable(getattr(value, name, None))]
    if missing:
        return f"it has no method {', '.join(missing)}"
    return _complain_of_name(value)


def _complain_unless(kind: type[object]) -> Callable[[object], str | None]:
    def complain(value: object) -> str | None:
        if not isinstance(value, kind):
            return f"it is no {kind.__name__}"
        if isinstance(value, StageType | GateType) and not is_dataclass(value.params):
            return "its params are not a dataclass type"
        if isinstance(value, StageType) and (field := unreadable(value.params)):
            return f"stage {value.name}: its parameter {field}; a recipe can hold {PARAMETERS}"
        return _complain_of_name(value)

    return complain


def _complain_of_target(value: object) -> str | None:
    """Files of targets are read more strictly; what Python makes is held to the same."""
    if not isinstance(value, Target):
        return "it is no Target"
    try:
        target = decode(Target, encode(value))
    except (TypeError, ValueError) as error:
        return f"its {str(error).lstrip('.')}"
    if not _NAME.fullmatch(target.name):
        return "its name is not made of letters, digits, `.`, `_` and `-`"
    if min((target.threads, *target.batch_sizes)) < 1 or not target.batch_sizes:
        return f"it has {target.threads} threads and batch sizes {list(target.batch_sizes)}: 1 and more"
    return None


def _complain_of_name(value: object) -> str | None:
    name = getattr(value, "name", None)
    return None if isinstance(name, str) and name else "it has no name"


def _adopt_target(target: Target, plugin: PluginInfo) -> Target:
    ours = target.owner != _DEFAULT_OWNER or plugin.distribution == "this process"
    return target if ours else replace(target, owner=plugin.distribution)


def _owner_of_target(target: Target, _plugin: PluginInfo) -> str:
    return target.owner


BACKENDS: Kind[Backend] = Kind(word="backend", hook="qpipe_backends", error=PluginError, complain=_complain_of_backend)
TARGETS: Kind[Target] = Kind(
    word="target",
    hook="qpipe_targets",
    error=TargetError,
    complain=_complain_of_target,
    adopt=_adopt_target,
    owner=_owner_of_target,
)
STAGES: Kind[StageType[object]] = Kind(
    word="stage", hook="qpipe_stages", error=ConfigError, complain=_complain_unless(StageType)
)
GATES: Kind[GateType[object]] = Kind(
    word="gate", hook="qpipe_gates", error=ConfigError, complain=_complain_unless(GateType)
)
METRICS: Kind[Metric] = Kind(word="metric", hook="qpipe_metrics", error=ConfigError, complain=_complain_unless(Metric))
