"""`doctor`: is everything here that a run will need?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.cli.options import JsonFlag, StoreOption, UriOption, print_json, results

if TYPE_CHECKING:
    from qpipe.flow.doctor import Finding


def doctor(*, store: StoreOption = None, tracking_uri: UriOption = None, as_json: JsonFlag = False) -> int:
    """Check versions, plugins, targets, store and MLflow. Exit code 5 if something is broken."""
    from qpipe.flow.doctor import diagnose

    findings = diagnose(store=store, tracking_uri=tracking_uri)
    broken = any(found.state == "broken" for found in findings)
    if as_json:
        from qpipe.records.codec import plain

        print_json({"findings": [plain(found) for found in findings], "ok": not broken})
    else:
        _show(findings)
    return 5 if broken else 0


def _show(findings: tuple[Finding, ...]) -> None:
    from qpipe.flow.doctor import abridged
    from qpipe.report.columns import columns, plain

    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "broken": "[red]broken[/]"}
    table = columns("", "what", "found", folds=("found",), gap=2)
    table.show_header = False
    for found in abridged(findings):
        what, said, hint = plain(found.what, found.found, found.hint)
        table.add_row(marks[found.state], what, f"{said}\n[dim]hint: {hint}[/]" if hint else said)
    results().print(table)
    results().print("all of it, a finding each: qpipe doctor --json", style="dim")
