"""Many cells at a glance."""

import re
from dataclasses import replace
from html import escape
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import TypeAdapter
from rich.console import Group

from qpipe.records.fleet import Ended, Refusal
from qpipe.records.result import CellResult, RunResult
from qpipe.records.verdict import Decision, Verdict
from qpipe.report import NO_PLOTS
from qpipe.report.document import fleet_document
from qpipe.report.fleet import render_fleet, render_glance, render_run
from qpipe.report.fleetpage import fleet_page
from qpipe.report.overview import counted, folded, glance, look_first, told_apart
from qpipe.report.page import run_page
from qpipe.report.shapes import FleetShape
from qpipe.report.table import as_text


def gate(name, decision, reason, observed=0.5):
    return Verdict(gate=name, decision=decision, reason=reason, observed=observed)


def cell(model, target, *verdicts, recipe="int8", status="ok", reason="", hint=""):
    decision = verdicts[0].decision if verdicts else None
    return CellResult(
        key=f"{model}{target}{recipe}",
        model=model,
        recipe=recipe,
        target=target,
        status=status,
        reason=reason,
        hint=hint,
        verdicts=verdicts,
        decision=decision,
    )


PASSED = gate("quality", Decision.PASS, "the interval keeps the limit")
LOST = gate("quality", Decision.FAIL, "lost 4 points")
AWAY = gate("quality", Decision.INCONCLUSIVE, "not measured: no driver", observed=None)
CELLS = (
    cell("a", "cpu", recipe="none"),
    cell("a", "cpu", PASSED),
    cell("b", "cpu", LOST),
    *(cell(model, "gpu", AWAY, status="unavailable", reason="no driver", hint="a GPU") for model in "abcde"),
    cell("c", "cpu", status="failed", reason="node 'x' has NaN"),
    cell("d", "cpu", replace(AWAY, reason="the evidence is emulated")),
)


def test_what_would_let_evidence_decide_is_told_once_with_the_trouble():
    verdict = replace(AWAY, reason="the evidence is emulated", advice="`accept: [measured, emulated]`")
    (trouble,) = look_first([cell(model, "cpu", verdict) for model in "abc"])
    assert (trouble.what, trouble.hint) == ("the evidence is emulated", "`accept: [measured, emulated]`")
    assert len(trouble.labels) == 3


def test_notes_on_calibration_are_few_in_a_fleet_and_hide_no_other():
    lint = tuple(f"calibration of {model}/int8/cpu: 'x': 1 % lie outside" for model in "abcdefgh")
    empty = RunResult(run_id="r", mlflow_run_id=None, pipeline="p", exit_code=0, warnings=(), cells=(), promoted=())
    warned = [replace(empty, pipeline=f"p{n}", warnings=(*lint, f"alias {n} moved meanwhile")) for n in range(2)]
    text = as_text(render_fleet([Ended(file=Path(f"{one.pipeline}.yaml"), end=one) for one in warned]))
    assert text.count("note: calibration of") == 3
    assert "note: 5 more on calibration: qpipe report RUN_ID" in text
    assert text.index("alias 1 moved meanwhile") < text.index("note: calibration of")


def test_models_stand_in_lines_and_targets_in_columns():
    targets, lines = glance(CELLS)
    assert targets == ("cpu", "gpu")
    assert [(line.name, [one.decision if one else None for one in line.cells]) for line in lines][-1] == (
        "e",
        [None, Decision.INCONCLUSIVE],
    )


def test_recipes_of_one_model_are_told_apart():
    _, lines = glance((*CELLS, cell("a", "cpu", LOST, recipe="fp16")))
    names = [line.name for line in lines]
    assert (names[0], names[-1]) == ("a/int8", "a/fp16")


def test_the_worst_is_looked_at_first_and_one_reason_is_told_once():
    troubles = look_first(CELLS)
    assert [(one.word, one.what, len(one.labels)) for one in troubles] == [
        ("failed", "node 'x' has NaN", 1),
        ("FAIL", "quality", 1),
        ("INCONCLUSIVE", "the evidence is emulated", 1),
        ("unavailable", "gpu: no driver", 5),
    ]
    assert troubles[-1].named == "a, b, c and 2 more"
    assert counted(CELLS) == "1 failed, 1 FAIL, 1 INCONCLUSIVE, 5 unavailable, 1 PASS"


NO_OPERATOR = {"status": "failed", "reason": "no operator Einsum"}


@pytest.mark.parametrize(
    ("cells", "named"),
    [
        ([cell(model, "npu", **NO_OPERATOR) for model in "abcde"], "a, b, c and 2 more on npu"),
        ([cell("m", target, **NO_OPERATOR) for target in "abcde"], "m on a, b, c and 2 more"),
        ([cell(model, target, LOST) for model in "ab" for target in "xy"], "a, b on 2 targets"),
        ([cell("a", "npu", recipe=recipe, **NO_OPERATOR) for recipe in ("none", "int8")], "a/int8/npu"),
        ([cell("a", "npu", recipe="none", **NO_OPERATOR)], "a/none/npu"),
        (
            [cell("a", "npu", **NO_OPERATOR), cell("a", "npu", recipe="none", status="unavailable", reason="no board")],
            "a/int8/npu",
        ),
    ],
)
def test_cells_of_one_trouble_are_named_briefly(cells, named):
    (trouble,) = look_first(cells)
    assert trouble.named == named


def test_the_cell_furthest_from_its_limit_is_named_first_with_its_reason():
    near, far = (replace(LOST, observed=seen, limit=-0.01, reason=f"lost {seen}") for seen in (-0.02, -0.09))
    (trouble,) = look_first((cell("near", "cpu", near), cell("far", "cpu", far, PASSED)))
    assert trouble.labels == ("far/int8/cpu", "near/int8/cpu")
    assert trouble.worst == "lost -0.09"


def test_models_without_trouble_are_one_line_where_models_are_many():
    cells = [cell(f"m{n}", target, PASSED) for n in range(40) for target in ("cpu", "gpu")]
    cells[40] = cell("m20", "cpu", LOST)
    _, lines = glance(cells)
    assert [line.name for line in folded(lines)] == ["m20", "39 others"]
    assert folded(lines[:5]) == lines[:5]


def test_words_of_the_matrix_are_whole_on_a_narrow_terminal():
    undecided = replace(AWAY, observed=0.1)
    targets = ("cpu-local", "x86-openvino", "x86-litert", "cortex-m-tflm", "nvidia-rtx-ada", "cpu-arm64")
    cells = [cell("defect-detector-17", target, undecided) for target in targets]
    text = as_text(Group(*render_glance(cells)), width=80)
    assert len(re.findall(r"INCONCL\b", text)) == len(targets)
    assert "openvino" in text
    assert as_text(Group(*render_glance(cells)), width=160).count(" INCONCLUSIVE") == len(targets)


def test_a_fleet_on_the_terminal_and_as_json(result):
    first = replace(result, cells=CELLS, pipeline="first", exit_code=5)
    second = replace(result, cells=(cell("a", "cpu", LOST),), pipeline="second", promoted=(), warnings=())
    refusal = Refusal(message="[c].yaml:1: unknown key", hint="none", code=2)
    ended = [Ended(file=Path(f"{n}.yaml"), end=end) for n, end in zip("abc", (first, second, refusal), strict=True)]
    text = as_text(render_fleet(ended))
    for part in (
        "first/a",
        "second/a",
        "digits-cpu-local version 3 is champion",
        "[c].yaml:1: unknown key",
        "3 pipelines, 1 without a result; 1 failed, 2 FAIL",
    ):
        assert part in text, part
    document = fleet_document(ended, 2)
    TypeAdapter(FleetShape).validate_python(document)
    assert [one["exit_code"] for one in document["pipelines"]] == [5, 3, 2]
    assert document["pipelines"][2]["error"] == {"message": "[c].yaml:1: unknown key", "hint": "none", "code": 2}


@pytest.fixture
def many(result):
    cells = tuple(replace(one, model=f"<{one.model}{n}>", key=f"{one.key}{n}") for n in range(5) for one in CELLS[1:4])
    return replace(result, cells=cells)


def test_a_run_of_many_cells_is_told_at_a_glance_and_a_small_one_gate_by_gate(result, many):
    few, much = as_text(render_run(result)), as_text(render_run(many))
    assert "lower bound −0.004 is above −0.01" in few
    assert "the interval keeps the limit" not in much
    for part in ("look first", "<b4>", "5 FAIL, 5 unavailable, 5 PASS; the gates of every cell: qpipe report run-1"):
        assert part in much, part


def test_the_page_of_many_cells_begins_with_links_to_them(result, many):
    page = run_page(many, NO_PLOTS)
    assert page.index("At a glance") < page.index("<h2>Cells</h2>")
    links = re.findall('href="#([^"]+)"', page)
    assert set(links) <= set(re.findall('id="([^"]+)"', page))
    assert links.count(quote(many.cells[0].label)) == 2
    assert "&lt;b4&gt;" in page
    assert "<b4>" not in page
    assert "At a glance" not in run_page(result, NO_PLOTS)
    assert page.index("<th>look first") < page.index("<th>model")
    assert '<span class="badge fail">crashed</span> 1' in run_page(result, NO_PLOTS)


def test_the_page_shows_models_in_trouble_first_and_leads_to_each_of_their_cells(result):
    lost = [cell(f"z{n}", "cpu", LOST) for n in range(5)]
    page = fleet_page((replace(result, cells=(cell("a", "cpu", PASSED), *lost)),), {"run-1": "one.html"})
    matrix = page[page.index("<th>model") :]
    assert matrix.index("<td>z4</td>") < matrix.index("<td>a</td>")
    first = page[: page.index("<th>model")]
    assert [first.count(f'href="one.html#{one.label}"') for one in lost] == [1] * 5
    assert "and 2 more on cpu</summary>" in first


def test_the_matrix_of_the_page_tells_time_and_size_beside_the_float_engine(result):
    measured = next(one for one in result.cells if one.evidence and one.decision)
    page = fleet_page((replace(result, cells=(measured,)),), {"run-1": "one.html"})
    assert f"<small>{12345 / 45678:.2f}&nbsp;×&nbsp;size</small>" in page
    ratio = measured.evidence.profile.batches[0].ratio.median
    assert f"<small>{ratio:.2f}&nbsp;×&nbsp;time</small>" in page


def test_a_hundred_promotions_and_notes_are_one_line_each(result):
    promoted = tuple(replace(result.promoted[0], model=f"m{n}") for n in range(100))
    many = replace(result, promoted=promoted, warnings=tuple(f"note {n}" for n in range(100)))
    text = as_text(render_fleet([Ended(file=Path("a.yaml"), end=many), Ended(file=Path("b.yaml"), end=many)]))
    assert "200 engines are champion now" in text
    assert "note: 80 more: qpipe report RUN_ID" in text
    assert len(text.splitlines()) < 60


def test_two_runs_of_one_pipeline_are_lines_of_their_own(result):
    runs = [replace(result, run_id=run_id, cells=CELLS[:2]) for run_id in ("1" * 16, "2" * 16)]
    names = [{cell.model for cell in cells} for cells in told_apart(runs)]
    assert names == [{"digits <demo>@11111111/a"}, {"digits <demo>@22222222/a"}]


def test_the_page_of_several_runs_leads_to_the_cells_on_theirs(result):
    first = replace(result, cells=CELLS, pipeline="first", warnings=("both <say> it",))
    second = replace(first, run_id="run-2", cells=(cell("a", "cpu", LOST),), pipeline="second", promoted=())
    page = fleet_page((first, second), {"run-1": "run-1/report.html", "run-2": "run-2/report.html"})
    links = re.findall('href="([^"]+)"', page)
    pages = {"run-1/report.html", "run-2/report.html"}
    assert {*pages, *(f"{page}#a/int8/cpu" for page in pages)} <= {*links}
    assert page.count("both &lt;say&gt; it") == 1
    alike = [f"{cell.label}: the same of <all>" for cell in CELLS]
    told = run_page(replace(first, warnings=(*alike, f"{CELLS[0].label}: its own")), NO_PLOTS)
    assert told.count("the same of &lt;all&gt;") == 1
    assert f"<summary>{len(CELLS)} cells</summary>" in told
    assert f"{escape(CELLS[0].label)}: its own" in told
    for part in ("<h1>2 runs</h1>", "<td>second/a</td>", "lost 4 points", "Promoted", "not logged"):
        assert part in page, part
