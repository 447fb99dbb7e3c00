"""`run` and `plan` of many pipeline files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.cli.options import print_json, results

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from threading import Event

    from qpipe.flow.fleet import Plugins
    from qpipe.flow.options import RunOptions
    from qpipe.records.fleet import Ended
    from qpipe.records.result import RunResult


def run_pipelines(
    paths: Sequence[Path],
    run: Callable[[Path], RunResult],
    *,
    as_json: bool,
    junit: Path | None = None,
    store: str | None = None,
    stop: Event | None = None,
    plugins: Plugins | None = None,
) -> int:
    """Run many pipeline files, print what came out of all, and return the worst exit code.

    `stop`: set by `run` where it was interrupted.

    Raises:
        InterruptedFleet: after all that, if some are not finished.
    """
    from qpipe.config import without_bases
    from qpipe.flow.exitcodes import worst
    from qpipe.flow.fleet import run_fleet

    files = without_bases(paths, kind="pipeline")
    ended = run_fleet(files, run, _Roll(total=len(files)).call, stop, plugins)
    write_junit(junit, ended)
    if as_json:
        from qpipe.report.document import fleet_document

        print_json(fleet_document(ended, worst(one.exit_code for one in ended)))
    else:
        from qpipe.report.fleet import render_fleet

        results().print(render_fleet(ended))
        _say_report(ended, store)
    _check_finished(ended)
    return worst(one.exit_code for one in ended)


def _check_finished(ended: Sequence[Ended]) -> None:
    from qpipe.errors import InterruptedFleet
    from qpipe.flow.stopping import GO_ON

    left = sum(one.exit_code == InterruptedFleet.code for one in ended)
    if left:
        raise InterruptedFleet(f"interrupted: {left} of {len(ended)} pipelines are not finished", hint=GO_ON)


def _say_report(ended: Sequence[Ended], store: str | None) -> None:
    """The command that makes one page of all runs, in one line however long it is: it is to be copied."""
    import shlex

    from rich.console import Console

    from qpipe.records.result import RunResult

    ids = dict.fromkeys(one.end.run_id for one in ended if isinstance(one.end, RunResult))
    where = f" --store {shlex.quote(store)}" if store else ""
    if ids:
        line = f"as one page: qpipe report {' '.join(ids)}{where}"
        Console(soft_wrap=True).print(line, markup=False, highlight=False)


def check_junit(path: Path | None) -> None:
    """Refuse a place for the JUnit file where none can be, before hours of work.

    Raises:
        ConfigError: no such folder, or the file is one.
    """
    from qpipe.errors import ConfigError

    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise ConfigError(f"--junit {path}: no file can be written there", hint="a file in a folder that is there")


def write_junit(path: Path | None, ended: Sequence[Ended]) -> None:
    """Write the JUnit file where one is wanted.

    Raises:
        ConfigError: it cannot be written.
    """
    if path is None:
        return
    from qpipe.errors import ConfigError
    from qpipe.report.junit import junit_xml

    try:
        path.write_text(junit_xml(ended), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--junit {path} cannot be written: {error.strerror}", hint="another file") from error


def plan_pipelines(paths: Sequence[Path], options: RunOptions, *, as_json: bool) -> int:
    """Print a line per pipeline file: what of it is cached, what would run, and why."""
    from qpipe.config import without_bases
    from qpipe.flow.exitcodes import worst
    from qpipe.flow.fleet import plan_fleet
    from qpipe.records.fleet import Refusal

    found = plan_fleet(without_bases(paths, kind="pipeline"), options)
    code = worst(plan.code for _, plan in found if isinstance(plan, Refusal))
    if as_json:
        from qpipe.records.codec import plain
        from qpipe.report.document import refusal_document

        plans = [
            {"file": str(file), "error": refusal_document(plan), "cells": []}
            if isinstance(plan, Refusal)
            else {"file": str(file), "error": None, "cells": plain(plan)}
            for file, plan in found
        ]
        print_json({"exit_code": code, "pipelines": plans})
    else:
        from qpipe.report.plan import plans_table

        results().print(plans_table(found))
    return code


class _Roll:
    """One line on stderr for each pipeline that has ended."""

    def __init__(self, *, total: int) -> None:
        self._total = total
        self._count = 0

    def call(self, ended: Ended) -> None:
        """Say what became of it."""
        from rich.console import Console

        from qpipe.records.result import RunResult
        from qpipe.report.overview import counted

        self._count += 1
        end = ended.end
        said = f"{counted(end.cells)} (run {end.run_id})" if isinstance(end, RunResult) else f"error: {end.message}"
        line = f"[{self._count}/{self._total}] {ended.file}: exit code {ended.exit_code}: {said}"
        Console(stderr=True, soft_wrap=True).print(line, markup=False, highlight=False)
