"""The candidates of a search on the page of a run: what each is worth, and why it was chosen or left."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from qpipe.records.result import SearchTrial
from qpipe.report.html import head, row
from qpipe.report.table import number, size


def search_section(trials: Iterable[SearchTrial]) -> list[str]:
    """The trials as a table, the chosen ones in bold; nothing where the run had no search."""
    rows = [_row(trial) for trial in trials]
    if not rows:
        return []
    names = ("candidate", "float", "engine", "× float", "at most", "SQNR dB", "size", "why")
    note = "<p><small>judged on the search rows and timed there; only what was chosen meets the gate rows</small></p>"
    table = f'<div class="wide"><table>{head(names)}<tbody>{"".join(rows)}</tbody></table></div>'
    return [f"<section><h2>Search</h2>{table}{note}</section>"]


def _row(trial: SearchTrial) -> str:
    label = escape(f"{trial.model}/{trial.recipe}/{trial.target}")
    why = f"{trial.reason} ({trial.tried})" if trial.tried else trial.reason
    numbers = (trial.reference, trial.value, trial.ratio, trial.ratio_high, trial.sqnr_db)
    return row(
        f"<strong>{label}</strong>" if trial.chosen else label,
        *(number(one) for one in numbers),
        size(trial.size_bytes),
        escape(why),
    )
