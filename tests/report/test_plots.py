import math
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from qpipe.records.verdict import Decision
from qpipe.report.plots import write_plots
from qpipe.report.plots.slices import plot_slices
from qpipe.report.plots.tradeoff import plot_tradeoff

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg):
    return [element.text for element in ET.parse(svg).iter(f"{SVG}text")]


def test_slices_stand_with_their_rows_worst_first_and_a_missing_bound_draws_nothing(result, tmp_path):
    cell = next(cell for cell in result.cells if cell.verdicts)
    verdict = cell.verdicts[1]
    wide = tuple(replace(part, low=-math.inf, high=None) for part in verdict.slices)
    svg = plot_slices(cell, replace(verdict, slices=wide), tmp_path / "slices.svg")
    assert [text for text in texts(svg) if "(n" in text] == ["label=2  (n = 50)", "label=<1>  (n = 50)"]
    assert "inf" not in svg.read_text()
    assert "nan" not in svg.read_text()


def test_a_cell_knows_the_plots_that_show_it(result, evidence, tmp_path):
    plots = write_plots(result.cells, evidence, tmp_path)
    cell = next(cell for cell in result.cells if cell.decision is Decision.FAIL)
    names = ["quality-latency.svg", "latency-digits-int8-cpu-local.svg", "slices-digits-int8-cpu-local-slices.svg"]
    assert [path.name for path in plots.of(cell)] == [path.name for path in plots.files] == names
    reference = next(one for one in result.cells if one.recipe == "none")
    assert [path.name for path in plots.of(reference)] == ["quality-latency.svg"]
    assert any(cell.recipe in (text or "") for text in texts(plots.files[0]))


def test_an_engine_keeps_its_curve_under_another_name(result, evidence, tmp_path):
    """A recipe of another name and the same stages is told from the store: both curves were called float."""
    judged = next(cell for cell in result.cells if cell.verdicts)
    renamed = replace(judged, recipe="mine")
    (latency,) = (path for path in write_plots((renamed,), evidence, tmp_path).files if "latency-digits" in path.name)
    assert [text for text in texts(latency) if text in {"float", "mine"}] == ["float", "mine"]


def test_a_name_that_xml_cannot_hold_is_drawn_all_the_same(result, tmp_path):
    cell = replace(next(cell for cell in result.cells if cell.verdicts), model="a\x00b<&$")
    drawn = plot_slices(cell, cell.verdicts[1], tmp_path / "slices.svg")
    assert "a\ufffdb<&$/int8/cpu-local: slices" in texts(drawn)


def test_a_plot_is_drawn_once(result, evidence, tmp_path, monkeypatch):
    """Layout engines draw everything twice more, which is most of what a run of many cells waits for at its end."""
    drawn, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda figure, renderer: (drawn.append(figure), draw(figure, renderer))[1])
    plots = write_plots(result.cells, evidence, tmp_path)
    assert len(drawn) == len(plots.files) == 3


@pytest.mark.parametrize("name", ["a=1", "neighbourhood=San Lorenzo de El Escorial", "label=MMWWMMWW"])
def test_names_of_slices_are_not_cut_off(result, tmp_path, name):
    cell = next(cell for cell in result.cells if cell.verdicts)
    verdict = cell.verdicts[1]
    parts = tuple(replace(part, name=name) for part in verdict.slices)
    svg = plot_slices(cell, replace(verdict, slices=parts), tmp_path / "slices.svg")
    ends = [element for element in ET.parse(svg).iter(f"{SVG}text") if "(n" in (element.text or "")]
    assert len(ends) == 2
    for element in ends:
        x = float(element.attrib["x"])
        assert "end" in (element.get("style") or "")
        assert x > TextPath((0, 0), element.text, size=9).get_extents().width


def test_names_of_cells_stand_on_lines_of_their_own_and_inside_the_figure(result, tmp_path):
    cell = next(cell for cell in result.cells if cell.verdicts)
    cells = tuple(replace(cell, recipe=f"recipe-{number}-of-a-very-long-name-that-has-to-fit") for number in range(30))
    svg = plot_tradeoff(cells, tmp_path / "tradeoff.svg")
    width = float(ET.parse(svg).getroot().attrib["width"].removesuffix("pt"))
    names = [element for element in ET.parse(svg).iter(f"{SVG}text") if "recipe-" in (element.text or "")]
    heights = sorted(float(element.attrib["y"]) for element in names)
    assert all(lower - upper > 11.9 for upper, lower in pairwise(heights))
    for element in names:
        assert element.text.endswith(cell.decision.value)
        assert float(element.attrib["x"]) + TextPath((0, 0), element.text, size=9).get_extents().width < width
