"""`run`, `plan`, `demo`: the main job."""

from __future__ import annotations

import threading
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qpipe.cli.options import JsonFlag, PipelineFiles, StoreOption, UriOption, print_json, results

if TYPE_CHECKING:
    from qpipe.execute.children.nursery import Nursery
    from qpipe.flow.fleet import Plugins
    from qpipe.flow.options import RunOptions
    from qpipe.flow.workplace import Workplace
    from qpipe.records.result import RunResult

Names = Annotated[list[str] | None, typer.Option(help="Only this one; may be given several times.")]
Offline = Annotated[bool, typer.Option("--offline", help="Do not talk to MLflow; `qpipe sync` logs later.")]


def run(
    pipelines: PipelineFiles,
    *,
    target: Names = None,
    recipe: Names = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Work again on what is cached or was refused; counts as a look.")
    ] = False,
    offline: Offline = False,
    profile: Annotated[bool, typer.Option(help="Measure latency and memory.")] = True,
    promote: Annotated[bool, typer.Option(help="Promote what passes.")] = True,
    workers: Annotated[int | None, typer.Option(min=1, help="Children at a time. [default: CPUs + 3]")] = None,
    executor: Annotated[str, typer.Option(help="`local`, or `dask` for other machines: docs/scaling.md.")] = "local",
    scheduler: Annotated[str | None, typer.Option(help="Dask scheduler, e.g. tcp://HOST:8786.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Also write the verdicts as JUnit XML, for CI.")] = None,
    store: StoreOption = None,
    tracking_uri: UriOption = None,
    as_json: JsonFlag = False,
) -> int:
    """Plan, execute, gate, log and promote pipelines. Exit code 0 only if every required gate passed."""
    from qpipe.flow.options import RunOptions

    options = RunOptions(
        targets=tuple(target or ()),
        recipes=tuple(recipe or ()),
        fresh=fresh,
        offline=offline,
        profile=profile,
        promote=promote,
        workers=workers,
        executor=executor,
        scheduler=scheduler,
        store=store,
        tracking_uri=tracking_uri,
    )
    from qpipe.cli.fleet import check_junit, run_pipelines

    check_junit(junit)
    if len(pipelines) == 1:
        return run_pipeline(pipelines[0], options, as_json=as_json, junit=junit)
    from qpipe.execute.children.nursery import Nursery
    from qpipe.flow.fleet import Plugins

    stop, plugins, nursery = threading.Event(), Plugins(), Nursery()
    with ExitStack() as sown:
        return run_pipelines(
            pipelines,
            lambda path: _run_of_many(path, options, plugins, nursery, sown, stop),
            as_json=as_json,
            junit=junit,
            store=store,
            stop=stop,
            plugins=plugins,
        )


def run_pipeline(path: Path, options: RunOptions, *, as_json: bool, junit: Path | None = None) -> int:
    """Run one pipeline file, print what came out, and return the exit code."""
    from qpipe.cli.fleet import write_junit
    from qpipe.errors import QpipeError
    from qpipe.flow.fleet import refusal
    from qpipe.records.fleet import Ended

    try:
        result = _run_alone(path, options)
    except QpipeError as error:
        write_junit(junit, (Ended(file=path, end=refusal(error)),))
        raise
    write_junit(junit, (Ended(file=path, end=result),))
    if as_json:
        from qpipe.report.document import run_document

        print_json(run_document(result))
    else:
        show_result(result)
    return result.exit_code


def _run_alone(path: Path, options: RunOptions) -> RunResult:
    """One pipeline; what its children need is loaded while it is read, and in vain where all is cached."""
    from qpipe.execute.children.nursery import Nursery
    from qpipe.flow.workplace import open_workplace

    nursery = Nursery()
    with nursery.opened() if options.executor == "local" else nullcontext():
        workplace = open_workplace(path, options, nursery)
        return _conduct(workplace, options, threading.Event())


def _run_of_many(  # noqa: PLR0917  (what many runs share)
    path: Path,
    options: RunOptions,
    plugins: Plugins,
    nursery: Nursery,
    sown: ExitStack,
    stop: threading.Event,
) -> RunResult:
    """One pipeline of many; the first with work opens the nursery, until `sown` is closed.

    `stop` is set where Ctrl-C was pressed meanwhile, even if the run came to its end.
    """
    from qpipe.flow.cells.jobs import has_work
    from qpipe.flow.workplace import open_workplace

    workplace = open_workplace(path, options, nursery, plugins.beside(path))
    if options.executor == "local" and has_work(workplace, options):
        sown.enter_context(nursery.opened())
    return _conduct(workplace, options, stop)


def show_result(result: RunResult) -> None:
    """The tables of a run on stdout."""
    from qpipe.report.fleet import render_run

    results().print(render_run(result))


def _conduct(workplace: Workplace, options: RunOptions, stop: threading.Event) -> RunResult:
    """Run in a thread, so that Ctrl-C here can stop the children and still let them be cleaned up."""
    from concurrent.futures import ThreadPoolExecutor

    from qpipe.cli.screen import Screen
    from qpipe.flow.conduct import conduct

    with ThreadPoolExecutor(max_workers=1) as pool, Screen() as watch:
        future = pool.submit(conduct, workplace, options, watch, stop)
        try:
            return future.result()
        except KeyboardInterrupt:
            stop.set()
            return future.result()


def plan(
    pipelines: PipelineFiles,
    *,
    target: Names = None,
    recipe: Names = None,
    profile: Annotated[bool, typer.Option(help="As for `run`.")] = True,
    store: StoreOption = None,
    tracking_uri: UriOption = None,
    as_json: JsonFlag = False,
) -> int:
    """Show every cell with its three keys, what is cached, and if not which ingredient changed."""
    from qpipe.flow.options import RunOptions
    from qpipe.flow.preflight.forecast import forecast
    from qpipe.flow.workplace import open_workplace

    options = RunOptions(
        targets=tuple(target or ()),
        recipes=tuple(recipe or ()),
        profile=profile,
        store=store,
        tracking_uri=tracking_uri,
    )
    if len(pipelines) > 1:
        from qpipe.cli.fleet import plan_pipelines

        return plan_pipelines(pipelines, options, as_json=as_json)
    found = forecast(open_workplace(pipelines[0], options))
    if as_json:
        from qpipe.records.codec import plain

        print_json({"cells": [plain(one) for one in found]})
        return 0
    from qpipe.report.plan import plan_table

    results().print(plan_table(found))
    return 0


def demo(
    folder: Annotated[Path, typer.Option(help="Where to work.")] = Path("demo-run"),
    *,
    as_json: JsonFlag = False,
) -> int:
    """Run the main job on a bundled model and data: quantize, measure, gate, log to sqlite, promote."""
    from qpipe.flow.demonstration import prepare_demo, whereto
    from qpipe.flow.options import RunOptions

    pipeline, options = prepare_demo(folder, RunOptions())
    code = run_pipeline(pipeline, options, as_json=as_json)
    if not as_json:
        typer.echo(whereto(folder))
    return code
