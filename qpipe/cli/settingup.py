"""`setup`: create the tool environment or emulator root that a target needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qpipe.cli.options import JsonFlag, print_json

if TYPE_CHECKING:
    from qpipe.plugins.registry import Registry
    from qpipe.records.target import Target


def setup(
    name: Annotated[str, typer.Argument(help="A target, a backend, or an emulator that a target names.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    """Create what a target needs beside its plugin: a tool environment, an emulator's root. Idempotent."""
    from qpipe.cli.screen import Steps
    from qpipe.errors import ConfigError
    from qpipe.flow.workplace import open_registry
    from qpipe.hosts.emulator import NAMES
    from qpipe.hosts.qemu_root import create_root
    from qpipe.plugins.backend import Setup

    if name in NAMES:
        with Steps(quiet=as_json) as steps:
            create_root(steps)
        _say(name, {"emulator": name, "ready": True}, as_json=as_json)
        return
    registry = open_registry()
    target = find_target(registry, name)
    backend = registry.backend(target.backend)
    if not isinstance(backend, Setup):
        raise ConfigError(f"{name} needs no setup: backend {target.backend} has none", hint="qpipe targets")
    with Steps(quiet=as_json) as steps:
        backend.setup(target, steps)
    _say(name, {"target": target.name, "backend": target.backend, "ready": True}, as_json=as_json)


def _say(name: str, document: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        typer.echo(f"{name} is set up")


def find_target(registry: Registry, name: str) -> Target:
    """The target of that name, else the first one (local ones first) with that backend.

    Raises:
        TargetError: there is none; the message has the nearest name.
    """
    targets = registry.targets
    if name in targets:
        return targets[name]
    meant = [one for one in targets.values() if name == one.backend]
    if not meant:
        return registry.target(name)
    return min(meant, key=lambda one: (one.host.kind != "local", one.name))
