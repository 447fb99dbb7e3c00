"""Who may take a registered name."""

from dataclasses import replace

from qpipe.flow.cells.claims import promotable, promoted_name
from qpipe.records.pipeline import PromoteSpec
from qpipe.records.result import CellResult
from qpipe.records.verdict import Decision

CELL = CellResult(key="k", model="m", recipe="int8", target="t", status="ok", decision=Decision.PASS)


def test_of_several_that_would_take_one_name_the_first_is_promoted():
    cells = tuple(replace(CELL, recipe=recipe, key=recipe) for recipe in ("int8", "dynamic", "fp16"))
    failed = (replace(cells[0], decision=Decision.FAIL), *cells[1:])
    together, apart = PromoteSpec(), PromoteSpec(model="{model}-{recipe}-{target}")
    assert [cell.recipe for cell in promotable(cells, together)] == ["int8"]
    assert [cell.recipe for cell in promotable(failed, together)] == ["dynamic"]
    assert [cell.recipe for cell in promotable(cells, apart)] == ["int8", "dynamic", "fp16"]
    assert promoted_name(apart, "m", "int8", "t") == "m-int8-t"
