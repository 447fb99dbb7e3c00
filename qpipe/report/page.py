"""The report of a run: one HTML page that needs nothing else, and its plots beside it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from types import MappingProxyType

from qpipe.records.evidence import Evaluation, NotMeasured, Profile
from qpipe.records.explanation import Explanation
from qpipe.records.result import CellResult, RunResult
from qpipe.records.verdict import Verdict
from qpipe.report.frame import framed, notes, promotions
from qpipe.report.glance import glance_section
from qpipe.report.html import anchor, badge, counted, head, mark, row, whole
from qpipe.report.insight import insight
from qpipe.report.overview import words_counted
from qpipe.report.plots import Plots
from qpipe.report.searched import search_section
from qpipe.report.table import NOTHING, fewer_rows, number, size

NOBODY: Mapping[str, Explanation] = MappingProxyType({})
"""No cell has been explained."""


def write_run_report(
    result: RunResult, plots: Plots, folder: Path, explained: Mapping[str, Explanation] = NOBODY
) -> tuple[Path, ...]:
    """Write `report.html` into `folder`; its path and those of the plots, the page first.

    `explained`: what `qpipe explain` has found, by cell key.
    """
    page = folder / "report.html"
    page.write_text(run_page(result, plots, explained), encoding="utf-8")
    return (page, *plots.files)


def run_page(result: RunResult, plots: Plots, explained: Mapping[str, Explanation] = NOBODY) -> str:
    """The page, with the plots inside it."""
    return framed(
        f"{result.pipeline} · {result.run_id}",
        [
            *_header(result),
            *notes(result.warnings, [cell.label for cell in result.cells]),
            *glance_section(result.cells),
            _overview(result.cells),
            *promotions(result.promoted),
            *search_section(result.search),
            *(_figure(path) for path in plots.shared),
            *(_cell(cell, result.cells, plots, explained) for cell in result.cells),
        ],
    )


def _header(result: RunResult) -> list[str]:
    counts = " ".join(f"{mark(word)} {count}" for word, count in words_counted(result.cells))
    facts = {
        "run": result.run_id,
        "MLflow run": result.mlflow_run_id or "not logged",
        "exit code": str(result.exit_code),
    }
    pairs = "".join(f"<dt>{escape(name)}</dt><dd><code>{escape(value)}</code></dd>" for name, value in facts.items())
    return [f"<header><h1>{escape(result.pipeline)}</h1><p>{counts}</p><dl>{pairs}</dl></header>"]


def _overview(cells: Iterable[CellResult]) -> str:
    names = (
        "cell",
        "verdict",
        "metric",
        "float",
        "engine",
        "p50 ms",
        "time\n× float",
        "90 % interval",
        "size",
        "size\n× float",
        "integer\nnodes",
    )
    shown = tuple(cells)
    rows = "".join(_overview_row(cell, fewer) for cell, fewer in zip(shown, fewer_rows(shown), strict=True))
    return f'<section><h2>Cells</h2><div class="wide"><table>{head(names)}<tbody>{rows}</tbody></table></div></section>'


def _overview_row(cell: CellResult, fewer: str) -> str:
    evidence = cell.evidence
    evaluation = evidence.evaluation if evidence and isinstance(evidence.evaluation, Evaluation) else None
    reference = evidence.reference if evidence and isinstance(evidence.reference, Evaluation) else None
    batch = evidence.first_batch if evidence else None
    ratio = batch.ratio if batch else None
    placement = evidence.placement if evidence else None
    total = placement.integer + placement.float if placement else 0
    return row(
        f'<a href="#{anchor(cell)}">{escape(cell.label)}</a>',
        badge(cell.decision) if cell.decision else escape("reference" if cell.status == "ok" else cell.status),
        escape(evaluation.metric) if evaluation else NOTHING,
        number(reference.value if reference else None),
        number(evaluation.value if evaluation else None) + fewer,
        number(dict(batch.latency_ms)["p50"].value) if batch else NOTHING,
        number(ratio.median if ratio else None),
        whole(f"{number(ratio.low)} … {number(ratio.high)}") if ratio else NOTHING,
        whole(size(evidence.engine_size_bytes if evidence else None)),
        number(evidence.size_ratio if evidence else None),
        whole(f"{placement.integer} of {total}") if placement else NOTHING,
    )


def _cell(cell: CellResult, cells: tuple[CellResult, ...], plots: Plots, explained: Mapping[str, Explanation]) -> str:
    own = [path for path in plots.of(cell) if path not in plots.shared]
    return "".join(
        [
            f'<section id="{anchor(cell)}">',
            f"<h2>{escape(cell.label)} {badge(cell.decision) if cell.decision else ''}</h2>",
            *_trouble(cell),
            _gates(cell.verdicts),
            *(_figure(path) for path in own),
            insight(cell, explained.get(cell.key), cells),
            _left_in_float(cell),
            _facts(cell),
            _conditions(cell),
            "</section>",
        ]
    )


def _trouble(cell: CellResult) -> list[str]:
    if cell.status == "ok":
        return []
    tail = f"<pre>{escape(cell.log_tail)}</pre>" if cell.log_tail else ""
    hint = f"<br>{escape(cell.hint)}" if cell.hint else ""
    return [f'<p class="trouble"><b>{escape(cell.status)}</b>: {escape(cell.reason)}{hint}</p>{tail}']


def _gates(verdicts: tuple[Verdict, ...]) -> str:
    if not verdicts:
        return ""
    rows = "".join(_gate_row(verdict) for verdict in verdicts)
    names = ("gate", "verdict", "observed", "low", "high", "limit", "n", "α", "kind", "reason")
    return f'<div class="wide"><table class="prose">{head(names)}<tbody>{rows}</tbody></table></div>'


def _gate_row(verdict: Verdict) -> str:
    notes = f" <i>{escape(', '.join(verdict.notes))}</i>" if verdict.notes else ""
    advice = f"<br><small>{escape(verdict.advice)}</small>" if verdict.advice else ""
    return row(
        escape(verdict.gate) + ("" if verdict.required else " <small>optional</small>"),
        badge(verdict.decision),
        number(verdict.observed),
        number(verdict.low),
        number(verdict.high),
        number(verdict.limit),
        NOTHING if verdict.n is None else f"{verdict.n:,}",
        number(verdict.alpha),
        escape(verdict.kind or NOTHING),
        f"{escape(verdict.reason)}{notes}{advice}",
    )


def _left_in_float(cell: CellResult) -> str:
    placement = cell.evidence.placement if cell.evidence else None
    if placement is None or not placement.left_in_float:
        return ""
    rows = "".join(row(escape(one.name), escape(one.op), escape(one.reason)) for one in placement.left_in_float)
    table = f"<table>{head(('node', 'op', 'why'))}<tbody>{rows}</tbody></table>"
    count = counted(len(placement.left_in_float), "quantizable node")
    return f"<details><summary>{count} stayed in float</summary>{table}</details>"


def _facts(cell: CellResult) -> str:
    """Numbers and remarks of the toolchain."""
    if cell.engine is None:
        return ""
    facts = cell.evidence.facts if cell.evidence else cell.engine.facts
    placed = cell.engine.placement.notes if cell.engine.placement else ()
    rows = [
        row(
            escape(one.name),
            f"{one.value:,.0f}" if float(one.value).is_integer() else number(one.value),
            escape(one.unit),
            escape(one.kind),
        )
        for one in facts
    ]
    table = f"<table>{head(('fact', 'value', 'unit', 'kind'))}<tbody>{''.join(rows)}</tbody></table>" if rows else ""
    told = "".join(f"<p>{escape(note)}</p>" for note in cell.engine.notes if note not in placed)
    found = table + told
    return f"<details><summary>What the toolchain says of the build</summary>{found}</details>" if found else ""


def _conditions(cell: CellResult) -> str:
    """Digests and everything that the numbers were taken under."""
    pairs = [("cell", cell.key)]
    if cell.engine is not None:
        pairs += [("engine", cell.engine.digest), ("model", cell.engine.model_digest), *cell.engine.toolchain]
    if cell.evidence is not None:
        pairs += [("evidence", cell.evidence.digest), *_measured(cell.evidence.profile)]
        if isinstance(cell.evidence.evaluation, Evaluation):
            pairs += [("gate data", cell.evidence.evaluation.data_digest)]
        if cell.evidence.placement is not None:
            pairs += [("placement", note) for note in cell.evidence.placement.notes]
    rows = "".join(row(escape(name), f"<code>{escape(value)}</code>") for name, value in pairs)
    return f"<details><summary>Digests and conditions</summary><table><tbody>{rows}</tbody></table></details>"


def _measured(profile: Profile | NotMeasured) -> list[tuple[str, str]]:
    if isinstance(profile, NotMeasured):
        return [("profile", f"not measured: {profile.reason}")]
    protocol = f"{profile.processes} processes × {profile.rounds} rounds, {profile.threads} threads, {profile.kind}"
    why = f" ({profile.drift})" if profile.drift else ""
    drift = f"yes: times do not count{why}" if profile.drifted else f"no ({profile.voided} runs thrown away)"
    return [("protocol", protocol), ("drift", drift), *profile.conditions]


def _figure(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(path.stem)}" src="data:image/svg+xml;base64,{data}">'
