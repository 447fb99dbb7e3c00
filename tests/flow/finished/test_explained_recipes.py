"""Which recipe `qpipe explain` means by the name that a run has kept."""

from types import SimpleNamespace

import pytest
from small_pipeline import write_small_pipeline

from qpipe.flow.finished.explanation import _recipe, changed_since
from qpipe.flow.options import RunOptions
from qpipe.flow.workplace import open_workplace
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
    told = {"recipe": "tuned1", "chosen": True, "reason": ""}
    trials = (
        SearchTrial(model="m", target="other", stages=WRITTEN.stages, **told),  # a search names them by number
        SearchTrial(model="m", target="t", stages=FOUND, **told),
    )
    kept = SimpleNamespace(
        pipeline=SimpleNamespace(recipes=(OWN,), search=SearchSpec(candidates=(WRITTEN,))),
        result=SimpleNamespace(search=trials),
    )
    assert _recipe(SimpleNamespace(model="m", target="t", recipe=name), kept) == RecipeSpec(name=name, stages=stages)


@pytest.mark.parametrize("profile", [True, False])
def test_what_is_no_longer_as_it_was_judged_is_told(tmp_path, monkeypatch, profile):
    monkeypatch.chdir(tmp_path)
    path = write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=["int8"])
    workplace = open_workplace(path, RunOptions(offline=True, store=str(tmp_path / "store"), profile=profile))
    for cell in workplace.cells:
        was = SimpleNamespace(model=cell.model.name, target=cell.target.name, recipe=cell.recipe.name, key=cell.key)
        spec = RecipeSpec(name=cell.recipe.name)
        assert changed_since(workplace, was, spec) == ()
        assert changed_since(workplace, SimpleNamespace(**{**vars(was), "key": "older"}), spec)[0].startswith(
            "made anew"
        )
