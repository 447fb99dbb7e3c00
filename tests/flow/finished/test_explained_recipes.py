"""Which recipe `qpipe explain` means by the name that a run has kept."""

from types import SimpleNamespace

import pytest

from qpipe.flow.finished.explanation import _recipe
from qpipe.records.pipeline import RecipeSpec, SearchSpec
from qpipe.records.recipe import StageSpec
from qpipe.records.result import SearchTrial

OWN = RecipeSpec(name="own", stages=(StageSpec(name="fold"),))
WRITTEN = RecipeSpec(name="written", stages=(StageSpec(name="fp16"),))
FOUND = (StageSpec(name="calibrate"), StageSpec(name="quantize", params={"ranges": "mse"}))


@pytest.mark.parametrize(
    ("name", "stages"),
    [("own", OWN.stages), ("written", WRITTEN.stages), ("tuned1", FOUND), ("int8", None)],
)
def test_own_recipes_candidates_and_what_a_search_made_keep_their_stages(name, stages):
    trial = SearchTrial(model="m", target="t", recipe="tuned1", chosen=True, reason="", stages=FOUND)
    kept = SimpleNamespace(
        pipeline=SimpleNamespace(recipes=(OWN,), search=SearchSpec(candidates=(WRITTEN,))),
        result=SimpleNamespace(search=(trial,)),
    )
    assert _recipe(name, kept) == RecipeSpec(name=name, stages=stages)
