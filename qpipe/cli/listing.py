"""`targets`, `stages`, `gates`, `plugins`, `schema`: what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qpipe.cli.options import JsonFlag, print_json, results

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qpipe.plugins.registry import Registry
    from qpipe.records.target import Target
    from qpipe.report.offers import Offer


def targets(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="target", help="Only these, with all that is said of them.")
    ] = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """List hardware targets: whether engines can be built and run here, and if not, why."""
    from qpipe.flow.workplace import open_registry

    registry = open_registry()
    offers = [_offer(registry, registry.target(name)) for name in names or sorted(registry.targets)]
    if as_json:
        from dataclasses import asdict

        print_json({"targets": [asdict(offer) for offer in offers]})
        return
    from qpipe.report.offers import offer_table, offers_list

    for shown in map(offer_table, offers) if names else (offers_list(offers),):
        results().print(shown)


def _offer(registry: Registry, target: Target) -> Offer:
    from qpipe.errors import QpipeError
    from qpipe.plugins.answers import ask_availability
    from qpipe.records.engine import Unavailable
    from qpipe.report.offers import READY, Offer

    try:
        found = ask_availability(registry.backend(target.backend), target)
    except QpipeError as error:
        build = run = error.message
        hint = error.hint
    else:
        states = (found.build, found.run)
        build, run = (
            state.reason if isinstance(state, Unavailable) else "; ".join(filter(None, (READY, state.note)))
            for state in states
        )
        hint = next((state.hint for state in states if isinstance(state, Unavailable)), "")
    return Offer(target=target.name, backend=target.backend, build=build, run=run, hint=hint, summary=target.summary)


def stages(*, as_json: JsonFlag = False) -> None:
    """List the stages that recipes may name, with their parameters."""
    from qpipe.flow.workplace import open_registry

    found = open_registry().stages.values()
    _show(
        ("stage", "parameters", "summary"),
        [(s.name, _fields(s.params), s.summary) for s in found],
        key="stages",
        folds=("parameters", "summary"),
        as_json=as_json,
    )


def gates(*, as_json: JsonFlag = False) -> None:
    """List the gates that pipelines may name, with their keys."""
    from qpipe.flow.workplace import open_registry

    found = open_registry().gates.values()
    _show(
        ("gate", "keys", "summary"),
        [(g.name, _fields(g.params), g.summary) for g in found],
        key="gates",
        folds=("keys", "summary"),
        as_json=as_json,
    )


def plugins(*, as_json: JsonFlag = False) -> None:
    """List plugins, and those that could not be loaded with the reason."""
    from qpipe.flow.workplace import open_registry

    registry = open_registry()
    loaded = [(p.name, p.distribution, p.version, "loaded", "") for p in registry.plugins]
    broken = [(p.name, p.distribution, p.version, p.reason, p.hint) for p in registry.problems]
    _show(
        ("plugin", "distribution", "version", "state", "hint"),
        loaded + broken,
        key="plugins",
        folds=("plugin", "state", "hint"),
        as_json=as_json,
    )


def schema(what: Annotated[str, typer.Argument(help="`result` (of run --json) or `pipeline`.")] = "result") -> None:
    """Print the JSON Schema of `run --json`, or of a pipeline file."""
    from qpipe.errors import ConfigError

    if what == "result":
        from qpipe.report import result_schema

        print_json(result_schema())
    elif what == "pipeline":
        from qpipe.config import pipeline_schema
        from qpipe.flow.workplace import open_registry

        registry = open_registry()
        print_json(pipeline_schema(registry.gates.values(), registry.stages.values()))
    else:
        raise ConfigError(f"no schema {what!r}", hint="there are `result` and `pipeline`")


def _fields(params: type[object]) -> str:
    from dataclasses import MISSING, fields

    shown = []
    for field in fields(params):  # type: ignore[arg-type]  # params are dataclasses by contract
        default = "" if field.default is MISSING else f"={field.default}"
        shown.append(field.name + default)
    return ", ".join(shown)


def _show(
    names: Sequence[str], rows: Iterable[Sequence[str]], *, key: str, folds: Sequence[str], as_json: bool
) -> None:
    if as_json:
        print_json({key: [dict(zip(names, row, strict=True)) for row in rows]})
        return
    from qpipe.report.columns import columns, plain

    table = columns(*names, folds=folds, gap=2)
    for row in rows:
        table.add_row(*plain(*row))
    results().print(table)
