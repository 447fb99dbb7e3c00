"""`promote`, `sync`, `rollback`, `history`, `verify`: the registry, always through the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qpipe.cli.options import JsonFlag, StoreOption, UriOption, print_json, results

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from qpipe.tracking import Tracker
    from qpipe.tracking.promotion.ledger import Move

Alias = Annotated[str, typer.Option("--alias", help="The alias to move.")]
ModelName = Annotated[str, typer.Argument(help="Registered model, e.g. digits-cpu-local.")]


def promote(
    what: Annotated[
        str,
        typer.Argument(
            metavar="run_id|cell", help="Id of a run, its beginning, or `last`; or a cell by its label: its newest run."
        ),
    ],
    *,
    cell: Annotated[str | None, typer.Option("--cell", help="Only this cell: its label or key.")] = None,
    alias: Annotated[str | None, typer.Option("--alias", help="[default: the pipeline's]")] = None,
    expect: Annotated[
        str | None, typer.Option("--expect", help="Version that the alias must be at now, or nothing is moved.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Promote what has not passed; needs --reason.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; recorded in the ledger.")] = None,
    store: StoreOption = None,
    tracking_uri: UriOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Register engines of a finished run as model versions and move an alias to them."""
    from qpipe.errors import ConfigError
    from qpipe.flow.finished.runs import is_label, latest_with_cell
    from qpipe.flow.publish.promotion import PromoteOrder, promote_run
    from qpipe.flow.workplace import open_store

    if force != (reason is not None):
        raise ConfigError("--force and --reason go together", hint='--force --reason "why this is right"')
    opened = open_store(store)
    if is_label(what, cell):
        kept, cell = latest_with_cell(opened, what)
        what = kept.result.run_id
    order = PromoteOrder(run_id=what, cell=cell, alias=alias, expected=expect, force_reason=reason)
    promoted = promote_run(opened, order, tracking_uri=tracking_uri)
    if as_json:
        from qpipe.report.document import promoted_document

        print_json({"promoted": [promoted_document(one) for one in promoted]})
        return
    for one in promoted:
        note = f"  ({one.note})" if one.note else ""
        typer.echo(f"{one.model}@{one.alias} → version {one.version}  engine {one.engine[:12]}{note}")


def sync(
    run_id: Annotated[str, typer.Argument(help="Id of a run, the beginning of one, or `last`.")] = "last",
    *,
    store: StoreOption = None,
    tracking_uri: UriOption = None,
    as_json: JsonFlag = False,
) -> int:
    """Log a run that MLflow has not seen (offline, or the server was lost), and promote what passed."""
    from qpipe.flow.publish.unlogged import sync_run
    from qpipe.flow.workplace import open_store

    found = sync_run(open_store(store), run_id, tracking_uri=tracking_uri)
    if as_json:
        from qpipe.report.document import run_document

        print_json(run_document(found))
    else:
        typer.echo(f"run {found.run_id} stands in MLflow as run {found.mlflow_run_id}")
        for one in found.promoted:
            typer.echo(f"{one.model}@{one.alias} → version {one.version}  engine {one.engine[:12]}")
    return found.exit_code


def rollback(
    model: ModelName,
    *,
    alias: Alias = "champion",
    reason: Annotated[str, typer.Option("--reason", help="Why; recorded in the ledger.")] = "",
    tracking_uri: UriOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Move an alias back to the version that it was at before."""
    from qpipe.report.document import promoted_document
    from qpipe.tracking import rollback as roll_back

    done = roll_back(_tracker(tracking_uri), model, alias, reason=reason)
    if as_json:
        print_json({"promoted": [promoted_document(done)]})
    else:
        typer.echo(f"{done.model}@{done.alias} → version {done.version}  engine {done.engine[:12]}")


def history(model: ModelName, *, tracking_uri: UriOption = None, as_json: JsonFlag = False) -> None:
    """Show every move of a model's aliases, and re-point an alias that has left its ledger."""
    from qpipe.tracking import history as read_history
    from qpipe.tracking import orphaned, reconcile

    tracker = _tracker(tracking_uri)
    moves = read_history(tracker, model)
    deleted = orphaned(tracker, model)
    if as_json:
        from qpipe.records.codec import plain

        mended = reconcile(tracker, model)
        kinds = {"moves": moves, "reconciled": mended, "deleted": deleted}
        print_json({"model": model, **{kind: [plain(move) for move in found] for kind, found in kinds.items()}})
        return
    results().print(moves_table(moves))
    for move in deleted:
        typer.echo(f"{model}@{move.alias}: its version {move.version} was deleted; roll back, or promote anew")
    for move in reconcile(tracker, model):  # last: whoever has no right to it sees the moves all the same
        typer.echo(f"re-pointed {model}@{move.alias} to version {move.version}: the alias had left its ledger")


def moves_table(moves: Iterable[Move]) -> Table:
    """One line a move, the first one first."""
    from qpipe.report.columns import columns, plain

    folds = ("action", "by", "at", "reason")
    table = columns("alias", "#", "action", "version", "from", "by", "at", "reason", folds=folds, gap=2)
    for move in moves:
        action = f"{move.action} (forced)" if move.forced else move.action
        before = move.previous or "–"
        table.add_row(
            *plain(move.alias, str(move.sequence), action, move.version, before, move.by, move.at, move.reason)
        )
    return table


def verify(
    uri: Annotated[str, typer.Argument(help="models:/NAME@ALIAS or models:/NAME/VERSION.")],
    *,
    tracking_uri: UriOption = None,
    store: StoreOption = None,
    as_json: JsonFlag = False,
) -> int:
    """Check every digest of a registered engine, run it on samples, and compare with its evidence."""
    from qpipe.flow.publish.verification import verify_engine
    from qpipe.flow.workplace import open_store

    found = verify_engine(uri, open_store(store), _tracker(tracking_uri))
    if as_json:
        from qpipe.records.codec import plain

        print_json({"uri": uri, "ok": found.ok, "checks": [plain(check) for check in found.checks]})
    else:
        for check in found.checks:
            typer.echo(f"{check.state:12} {check.what}: {check.found}")
    return 0 if found.ok else 5


def _tracker(uri: str | None) -> Tracker:
    """MLflow for commands that look for what is there: they make no database and no experiment."""
    from qpipe.errors import ConfigError
    from qpipe.tracking import connect, resolve_uri
    from qpipe.tracking.connection import sqlite_file

    found = resolve_uri(uri, folder=Path.cwd())
    database = sqlite_file(found)
    if database is not None and not database.exists():
        raise ConfigError(
            f"no MLflow database at {found}",
            hint="name one with --tracking-uri or MLFLOW_TRACKING_URI; a run makes one",
        )
    return connect(uri, None, folder=Path.cwd())
