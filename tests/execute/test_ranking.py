"""Which nodes a search leaves in float first: ranked in this process, on the small network."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from small_pipeline import write_small_pipeline

from qpipe.execute.jobs import Ranking, RankingJob
from qpipe.execute.work import ranking
from qpipe.flow.options import RunOptions
from qpipe.flow.workplace import open_workplace
from qpipe.quant import check
from qpipe.quant.options import QuantOptions
from qpipe.records.codec import decode, encode
from qpipe.records.recipe import Recipe, StageSpec
from qpipe.testing.progress import Silent


@pytest.fixture
def cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_small_pipeline(tmp_path, targets=["cpu-local"], recipes=["int8"])
    workplace = open_workplace(path, RunOptions(offline=True, store=str(tmp_path / "store")))
    return next(cell for cell in workplace.cells if cell.recipe.name == "int8")


def ranked(cell, store, **changes):
    return decode(Ranking, ranking.run_ranking(encode(RankingJob(store=str(store), cell=cell, **changes)), Silent()))


def test_a_ranking_is_made_once_and_again_where_that_is_asked(cell, tmp_path, monkeypatch):
    first = ranked(cell, tmp_path / "store")
    assert (sorted(first.nodes), first.problem) == (["conv2", "head"], "")
    calls = []
    monkeypatch.setattr(ranking, "rank", lambda *_: calls.append(1) or Ranking(nodes=("other",)))
    assert ranked(cell, tmp_path / "store") == first
    assert ranked(cell, tmp_path / "store", rows=8).nodes == ("other",)
    assert ranked(cell, tmp_path / "store", fresh="-token").nodes == ("other",)
    assert len(calls) == 2


def test_a_fresh_ranking_calibrates_anew(cell, tmp_path):
    made = tmp_path / "store" / "keys" / "statistics"
    seen = []
    for token in ("", "", "-token"):
        ranked(cell, tmp_path / "store", fresh=token)
        seen.append(len(list(made.iterdir())))
    assert seen == [2, 2, 4], "of folding and of calibrating"


def test_what_there_was_no_time_for_is_said_and_not_kept(cell, tmp_path):
    none = ranked(cell, tmp_path / "store", seconds=0.0)
    assert none.nodes == ()
    assert none.problem == "0 of 2 nodes were ranked in the 0 s that this may take"
    assert len(ranked(cell, tmp_path / "store").nodes) == 2


def test_nodes_are_ranked_as_the_recipe_quantizes_them(cell):
    stages = (StageSpec(name="quantize", params={"ranges": "percentile", "percentile": 60.0, "keep_float": ["stem"]}),)
    own = ranking.options_of(replace(cell, recipe=Recipe(name="own", stages=stages)))
    assert own == QuantOptions(ranges="percentile", percentile=60.0, keep_float=("stem",))


@pytest.mark.parametrize(("bad", "node"), [(2, "conv2"), (3, "head")])  # the first run is the float graph's
def test_a_graph_that_gives_nan_is_the_worst(cell, tmp_path, monkeypatch, bad, node):
    run, calls = check.run_feeds, []

    def spoilt(model, feeds):
        calls.append(model)
        found = run(model, feeds)
        return [[array * np.nan for array in one] for one in found] if len(calls) == bad else found

    monkeypatch.setattr(check, "run_feeds", spoilt)
    assert ranked(cell, tmp_path / "store").nodes[0] == node


@pytest.mark.parametrize(("fixed", "sizes"), [(None, [16]), (1, [1] * 16), (10, [10, 10])])
def test_a_small_fixed_batch_does_not_mean_few_rows(monkeypatch, fixed, sizes):
    def batches():
        for _ in range(4 if fixed is None else 40):
            tensors = SimpleNamespace(rows=fixed or 32, items={"x": np.zeros((fixed or 32, 2))}.items)
            tensors.values = lambda: [np.zeros((fixed or 32, 2))]
            yield tensors

    monkeypatch.setattr(ranking, "open_role", lambda *_: SimpleNamespace(fixed=fixed, batches=batches))
    where = SimpleNamespace(data=None, role="search", model=SimpleNamespace(signature=None))
    assert [len(feed["x"]) for feed in ranking.first_batches(where, 16)] == sizes
