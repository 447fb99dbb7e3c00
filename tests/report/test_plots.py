import math
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpipe.records.verdict import Decision
from qpipe.report.plots import write_cell_plots
from qpipe.report.plots.axes import Scale, limits
from qpipe.report.plots.slices import draw_slices
from qpipe.report.plots.tradeoff import draw_tradeoff

SVG = "{http://www.w3.org/2000/svg}"


def scale(low, high):
    return Scale(low=low, high=high, start=0, end=100)


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-0.11, 0.1, ["−0.10", "−0.05", "0.00", "0.05", "0.10"]),
        (1200, 5300, ["2,000", "3,000", "4,000", "5,000"]),
        (1e-9, 3.1e-9, ["1e−09", "1.5e−09", "2e−09", "2.5e−09", "3e−09"]),
    ],
)
def test_ticks_are_round_and_say_no_more_than_they_must(low, high, labels):
    assert [label for _, label in scale(low, high).ticks(5)] == labels


@given(st.lists(st.floats(-1e12, 1e12), min_size=1), st.floats(0.01, 0.3))
def test_every_value_lies_between_limits_that_have_a_few_ticks(values, share):
    low, high = limits(values, share)
    ticks = [value for value, _ in scale(low, high).ticks(5)]
    assert low < min(values) <= max(values) < high
    assert 2 <= len(ticks) <= 6
    assert all(low - 1e-6 * abs(low) <= value <= high + 1e-6 * abs(high) for value in ticks)


def test_what_is_not_finite_sets_no_limit_and_ends_at_the_border():
    assert limits((math.nan, 1.0, math.inf, 2.0), 0.5) == (0.5, 2.5)
    assert (scale(0, 1).within(math.inf), scale(0, 1).within(-math.inf)) == (100, 0)


def test_slices_stand_with_their_rows_worst_first_and_unbounded_ones_reach_the_border(result):
    cell = next(cell for cell in result.cells if cell.verdicts)
    verdict = cell.verdicts[1]
    wide = tuple(replace(part, low=-math.inf, high=None) for part in verdict.slices)
    svg = draw_slices(cell, replace(verdict, slices=wide))
    assert [text for text in texts(svg) if "(n" in text] == ["label=2  (n = 50)", "label=<1>  (n = 50)"]
    assert "inf" not in svg
    assert "nan" not in svg


def test_a_cell_has_its_own_plots_and_is_marked_among_the_others(result, evidence, tmp_path):
    cell = next(cell for cell in result.cells if cell.decision is Decision.FAIL)
    written = write_cell_plots(cell, result.cells, evidence[cell.key], tmp_path)
    assert [path.name for path in written] == ["quality-latency.svg", "latency.svg", "slices-slices.svg"]
    rings = [one for one in ET.parse(written[0]).iter(f"{SVG}circle") if one.get("fill") == "none"]
    assert len(rings) == 1
    assert draw_tradeoff(result.cells[:2]).count("<circle") == written[0].read_text().count("<circle") - 1


def test_a_name_that_xml_cannot_hold_is_drawn_all_the_same(result):
    cell = replace(next(cell for cell in result.cells if cell.verdicts), model="a\x00b<&$")
    assert "a\ufffdb<&$/int8/cpu-local: slices" in texts(draw_slices(cell, cell.verdicts[1]))
