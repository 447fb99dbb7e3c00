import re
from dataclasses import replace
from html.parser import HTMLParser
from types import MappingProxyType
from xml.etree import ElementTree as ET

from qpipe.records.explanation import Explanation, Layer
from qpipe.records.result import SearchTrial
from qpipe.report import NO_PLOTS, write_plots, write_run_report
from qpipe.report.page import run_page

VOID = {"meta", "img", "br"}


class Balance(HTMLParser):
    """Complains about tags that are not closed, and collects what a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched = [], []

    def handle_starttag(self, tag, attrs):
        self.fetched += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def report(result, evidence, folder, explained=MappingProxyType({})):
    folder.mkdir(exist_ok=True)
    return write_run_report(result, write_plots(result.cells, evidence, folder), folder, explained)


def test_the_page_stands_alone(result, evidence, tmp_path):
    page, *plots = report(result, evidence, tmp_path)
    text = page.read_text()
    parser = Balance()
    parser.feed(text)

    assert parser.open == []
    assert all(link.startswith(("data:", "#")) for link in parser.fetched)
    assert sum(link.startswith("data:image/svg+xml") for link in parser.fetched) == len(plots) == 3
    assert [path.name for path in plots] == [
        "quality-latency.svg",
        "latency-digits-int8-cpu-local.svg",
        "slices-digits-int8-cpu-local-slices.svg",
    ]


def test_the_page_says_what_was_decided_and_under_which_conditions(result, evidence, tmp_path):
    text = report(result, evidence, tmp_path)[0].read_text()
    for part in (
        "run-1",
        "digits &lt;demo&gt;",
        "signal 11 &lt;SEGV&gt;",
        "boom",
        "aa" * 32,
        "a &lt;fast&gt; CPU",
        "conv&lt;1&gt;",
        "arena_bytes</td><td>1,024",
        "3 builds: &lt;1&gt; engine",
    ):
        assert part in text, part
    assert re.search(r'class="badge fail">FAIL', text)
    assert "<demo>" not in text


def test_the_page_says_where_the_loss_comes_from_and_what_is_odd(result, evidence, tmp_path):
    text = report(result, evidence, tmp_path)[0].read_text()
    for part in ("41.25", "first 16 gate rows", "not run: &lt;no device&gt;", "in&lt;0&gt;", "every value is 1"):
        assert part in text, part
    assert "quantized tensors" not in text


def test_layers_join_the_page_once_they_were_explained(result, evidence, tmp_path):
    known = {"sqnr_db": 20.5, "low": 0.0, "high": 6.0, "clipped": 0.015}
    layers = (
        Layer(tensor="<t>", node="conv1", op="Conv", kernel="QLinearConv", **known),
        Layer(tensor="u", node="conv2", op="Conv", **{**known, "sqnr_db": 8.5}),
        Layer(tensor="x", node="", op="input", **{**known, "sqnr_db": None}),
    )
    one = Explanation(
        cell="", metric="accuracy", role="search", rows=8, steps=(), layers=layers, placement=None, remarks=()
    )
    cell = next(cell for cell in result.cells if cell.evidence)
    text = report(result, evidence, tmp_path, {cell.key: one})[0].read_text()
    table = text.partition("3 quantized tensors")[2]
    assert table.index("8.5") < table.index("20.5") < table.index("<td>x</td>")
    assert re.search(r"&lt;t&gt;.*1\.50 %.*QLinearConv", table)
    assert "not known" in table


def test_a_search_has_its_candidates_on_the_page(result):
    told = {"model": "m", "target": "t", "value": 0.875, "reference": 0.9}
    trials = (
        SearchTrial(
            **told, recipe="int8", chosen=True, reason="the best", ratio=0.5, ratio_high=0.625, size_bytes=2000
        ),
        SearchTrial(**told, recipe="tuned1", chosen=False, reason="a < b", tried="keep_float=[<n>]"),
    )
    page = run_page(replace(result, search=trials), NO_PLOTS)
    table = page.partition("<h2>Search</h2>")[2]
    for part in (
        "<strong>m/int8/t</strong>",
        "0.625",
        "2 kB",
        "<td>m/tuned1/t</td>",
        "a &lt; b (keep_float=[&lt;n&gt;])",
    ):
        assert part in table, part
    assert "<h2>Search</h2>" not in run_page(replace(result, search=()), NO_PLOTS)


def test_plots_are_well_formed_and_the_same_each_time(result, evidence, tmp_path):
    first = report(result, evidence, tmp_path / "a")[1:]
    second = report(result, evidence, tmp_path / "b")[1:]
    for one, other in zip(first, second, strict=True):
        assert ET.parse(one).getroot().tag.endswith("svg")
        assert one.read_bytes() == other.read_bytes()


def test_a_run_without_measurements_has_a_page_without_plots(unmeasured, tmp_path):
    written = write_run_report(unmeasured, NO_PLOTS, tmp_path)
    assert [path.name for path in written] == ["report.html"]
    assert "not measured: no device" in written[0].read_text()


def test_each_cell_shows_its_own_plots_alone(result, evidence, tmp_path):
    """`fast` begins the name of `fast-2`, `a-b/c` and `a/b-c` are one file name, and names may be too long for one.

    Recipes of the same stages have one key."""
    judged = next(cell for cell in result.cells if cell.verdicts)
    odd = [("m", "r", "fast"), ("m", "r", "fast-2"), ("a-b", "c", "t"), ("a", "b-c", "t"), ("ü" * 200, "r", "t")]
    cells = tuple(
        replace(judged, key="0" * 16, model=model, recipe=recipe, target=target) for model, recipe, target in odd
    )
    folder = evidence[judged.key]
    (tmp_path / "page").mkdir()
    plots = write_plots(cells, {cell.key: folder for cell in cells}, tmp_path / "page")
    assert len(set(plots.files)) == len(plots.files) == 2 * len(cells) + len(plots.shared)
    sections = run_page(replace(result, cells=cells), plots).split("<section id=")[1:]
    shown = [re.findall(r'<img alt="([^"]*)"', section) for section in sections]
    assert len({section[: section.index(">")] for section in sections}) == len(cells)
    assert shown == [[path.stem for path in plots.of(cell) if path not in plots.shared] for cell in cells]
