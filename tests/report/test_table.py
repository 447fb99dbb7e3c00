from dataclasses import replace

import pytest

from qpipe.records.result import SearchTrial
from qpipe.records.verdict import Decision
from qpipe.report.labels import label_lines
from qpipe.report.table import CellsView, SearchView, as_text, cell_text, fewer_rows, number, render_result, size


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (12345, "12.3 kB"), (4.56e6, "4.56 MB"), (7e9, "7 GB")],
)
def test_sizes_read_well(size_bytes, text):
    assert size(size_bytes) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.97312, "0.9731"), (-0.004, "-0.004"), (123456.0, "1.235e+05")]
)
def test_numbers_read_well(value, text):
    assert number(value) == text


def test_a_result_shows_cells_gates_troubles_promotions_and_notes(result):
    text = as_text(render_result(result))

    for part in (
        "digits/int8/cpu-local",
        "FAIL",
        "12.3 kB",
        "quality",
        "lower bound −0.004 is above −0.01",
        "about 1,900 more rows would decide",
        "crashed: signal 11 <SEGV>",
        "hint: look",
        "digits-cpu-local version 3 is champion",
        "note: two [cores] alone",
    ):
        assert part in text, part


def test_a_cell_that_saw_fewer_rows_says_how_many(result):
    cell = result.cells[1]
    assert fewer_rows(result.cells) == ("",) * len(result.cells)
    fewer = replace(cell.evidence, evaluation=replace(cell.evidence.evaluation, rows=3))
    assert fewer_rows((cell, replace(cell, evidence=fewer))) == ("", " (3 rows)")


def test_each_gate_has_one_line_with_its_numbers(result):
    line = next(line for line in cell_text(result.cells[1]).splitlines() if line.startswith("quality"))
    for figure in ("PASS", "-0.002", "-0.004", "0.001", "-0.01", "1,500"):
        assert figure in line


def test_what_was_not_measured_is_a_dash(unmeasured):
    line = cell_text(unmeasured.cells[0]).splitlines()[1]
    assert line.count("–") == 3


def test_a_narrow_terminal_keeps_numbers_on_one_line_and_reasons_below(result):
    text = as_text(render_result(result), width=90)
    line = next(line for line in text.splitlines() if line.startswith("quality"))
    assert "1,500" in line
    assert "reason" not in text
    assert "  quality: lower bound −0.004 is above −0.01" in text


def test_no_number_is_cut_off_where_names_are_long(result):
    long = replace(result, cells=tuple(replace(cell, model="a-model-of-a-long-name" * 3) for cell in result.cells))
    wide, narrow = (as_text(render_result(long), width=width) for width in (300, 80))
    for word in ("INCONCLUSIVE", "reference", "kB", "1,500", "p50 ms"):
        assert narrow.count(word) == wide.count(word)


def test_names_break_at_slashes_and_hyphens_and_cached_stays_beside_them(result):
    names = (("none", "cpu-local"), ("int8", "x86-litert"), ("int8-float-stem", "nvidia-rtx-blackwell"))
    undecided = replace(result.cells[1], model="resnet20-cifar10", decision=Decision.INCONCLUSIVE)
    cells = tuple(replace(undecided, recipe=recipe, target=target) for recipe, target in names)
    lines = as_text(CellsView(cells=cells), width=80).splitlines()
    assert [line[:29].rstrip() for line in lines[1:]] == [
        "resnet20-cifar10/",
        "  none/cpu-local cached",
        "  int8/x86-litert cached",
        "  int8-float-stem/",
        "  nvidia-rtx-blackwell cached",
    ]
    assert "resnet20-cifar10/int8/x86-litert cached" in as_text(CellsView(cells=cells), width=160)


@pytest.mark.parametrize(
    ("label", "room", "lines"),
    [
        ("m/int8/cpu-local", 30, ["m/int8/cpu-local cached"]),
        ("m/int8/cpu-local", 18, ["m/int8/", "cpu-local cached"]),
        ("a-long-name-of-a-model/int8/cpu", 12, ["a-long-name-", "of-a-model/", "int8/", "cpu cached"]),
        ("a--b//c", 4, ["a--", "b//", "c cached"]),
        ("", 4, [" cached"]),
    ],
)
def test_a_label_is_broken_where_it_has_parts(label, room, lines):
    assert label_lines(label, room, " cached").splitlines() == lines


def test_a_search_says_numbers_and_reasons_whole_on_a_narrow_terminal():
    """The reasons were gone, and 123 kB was `123 k`."""
    told = {"chosen": True, "value": 0.9012, "reference": 0.9123, "ratio": 0.512, "size_bytes": 123_456}
    targets = (("x86-litert", "int8"), ("nvidia-rtx-blackwell", "int8-float-stem"))
    trials = tuple(
        SearchTrial(model="resnet20-cifar10", recipe=recipe, target=target, reason="the fastest [x] of those", **told)
        for target, recipe in targets
    )
    narrow, wide = (as_text(SearchView(trials=trials), width=width) for width in (80, 160))
    for part in ("0.9123 → 0.9012", "0.512", "123 kB", "fastest [x]", "nvidia-rtx-blackwell", "float-stem/"):
        assert part in narrow, part
    assert wide.count("the fastest [x] of those\n") == 2
    assert "resnet20-cifar10/int8-float-stem/nvidia-rtx-blackwell 0.9123" in wide
