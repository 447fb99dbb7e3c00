"""`gate` and `report`: look at a finished run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qpipe.cli.options import JsonFlag, StoreOption, print_json, results

RunId = Annotated[str, typer.Argument(help="Id of a run, the beginning of one, or `last`.")]


def gate(
    run_id: RunId,
    *,
    gates: Annotated[
        Path | None, typer.Option("--gates", help="Other gates (a YAML file with `gates:`): exploratory.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonFlag = False,
) -> int:
    """Decide again from the stored evidence. Other gates than the run's own are exploratory and never promote."""
    from qpipe.flow.finished.verdicts import decide_again
    from qpipe.flow.workplace import open_store

    found = decide_again(open_store(store), run_id, gates)
    if as_json:
        from qpipe.report.document import cell_document

        cells = [cell_document(cell) for cell in found.cells]
        print_json(
            {"run_id": found.run_id, "exploratory": gates is not None, "exit_code": found.exit_code, "cells": cells}
        )
    else:
        from qpipe.cli.running import show_result

        if gates is not None:
            typer.echo("exploratory: these gates are not the run's own; nothing is promoted by them")
        show_result(found)
    return found.exit_code


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="run_id", help="Ids of runs, beginnings of them, or `last`. [default: last]", show_default=False
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html and the plots.")] = Path("qpipe-report"),
    store: StoreOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the HTML report and the plots of a finished run; of several, also one page with all at a glance."""
    from qpipe.errors import ConfigError
    from qpipe.flow.finished.report import write_report, write_reports
    from qpipe.flow.finished.runs import recall_run
    from qpipe.flow.workplace import open_store

    opened = open_store(store)
    recalled = (recall_run(opened, run_id).result for run_id in runs or ("last",))
    found = tuple({result.run_id: result for result in recalled}.values())  # `last` may be one of the others
    try:
        out.mkdir(parents=True, exist_ok=True)
        files = write_report(found[0], opened, out) if len(found) == 1 else write_reports(found, opened, out)
    except OSError as error:
        raise ConfigError(f"the report cannot be written to {out}: {error.strerror}", hint="--out FOLDER") from error
    if as_json:
        ids = [result.run_id for result in found]
        print_json(
            {**({"run_id": ids[0]} if len(ids) == 1 else {"run_ids": ids}), "files": [str(one) for one in files]}
        )
    elif len(found) == 1:
        typer.echo("\n".join(str(path) for path in files))
    else:
        typer.echo(f"{files[0]}\n{len(found)} reports of one run each, with their plots, in the folders beside it")


def compare(before: RunId, after: RunId, *, store: StoreOption = None, as_json: JsonFlag = False) -> None:
    """Show two runs side by side, cell by cell: verdict, metric, latency ratio, size."""
    from qpipe.flow.finished.comparison import compare_runs
    from qpipe.flow.finished.runs import recall_run
    from qpipe.flow.workplace import open_store

    opened = open_store(store)
    found = compare_runs(recall_run(opened, before).result, recall_run(opened, after).result)
    if as_json:
        from qpipe.records.codec import plain

        print_json({"cells": [plain(pair) for pair in found]})
        return
    from qpipe.report.compare import compare_table

    results().print(compare_table(found))


def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="run_id|cell", help="Id of a run, its beginning, or `last`; or a cell by its label: its newest run."
        ),
    ] = "last",
    *,
    cell: Annotated[str | None, typer.Option("--cell", help="Only this cell: its label or key.")] = None,
    store: StoreOption = None,
    as_json: JsonFlag = False,
) -> int:
    """Say why an engine is worse (loss of each step, worst layers) and why it is slower (what stayed in float)."""
    from qpipe.cli.screen import Screen
    from qpipe.flow.exitcodes import UNABLE
    from qpipe.flow.finished.explanation import explain_run
    from qpipe.flow.finished.runs import is_label, latest_with_cell, recall_run
    from qpipe.flow.workplace import open_store

    opened = open_store(store)
    kept, only = latest_with_cell(opened, what) if is_label(what, cell) else (recall_run(opened, what), cell)
    with Screen() as watch:
        found = explain_run(opened, kept, only, watch)
    code = UNABLE if found.not_explained else 0
    if as_json:
        from qpipe.records.codec import plain

        cells, left = ([plain(one) for one in some] for some in (found.cells, found.not_explained))
        print_json({"run_id": kept.result.run_id, "exit_code": code, "cells": cells, "not_explained": left})
        return code
    typer.echo(f"run {kept.result.run_id} of {kept.pipeline.name}")
    from qpipe.report.explain import render_explanation

    for one in found.cells:
        results().print(render_explanation(one))
    for failed in found.not_explained:
        typer.echo(f"error: {failed.cell} could not be explained: {failed.reason}", err=True)
        if failed.stopped:
            typer.echo(f"note: {failed.stopped}", err=True)
        if failed.hint:
            typer.echo(f"hint: {failed.hint}", err=True)
    return code
