"""Metrics of the user's own: `module:function` with the pipeline's folder first."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from qpipe.errors import ConfigError, DataError
from qpipe.metrics import builtin_metrics, find_metric, metric_source_digest
from qpipe.plugins.metric import Rows

SOURCE = '''
"""Scores for a test."""
import numpy as np

def near(outputs, columns):
    """Within one of the target."""
    return (np.abs(outputs["out"][:, 0] - columns["y"]) < 1).astype(np.float32)

def error(outputs, columns):
    return np.abs(outputs["out"][:, 0] - columns["y"])

error.higher_is_better = False
error.bounds = (0, 100)

def table(outputs, columns):
    return outputs["out"]

def words(outputs, columns):
    return np.array(["good"] * len(outputs["out"]))

def odd(outputs, columns):
    return columns["y"]

odd.bounds = (1, 0)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "user_scores_for_test.py").write_text(SOURCE)
    return tmp_path


ROWS = Rows(outputs={"out": np.array([[1.0], [5.0], [np.nan]])}, columns={"y": np.array([1.5, 1.0, 1.0])}, label=None)


def test_it_scores_each_row(folder):
    metric = find_metric("user_scores_for_test:near", (), folder)
    assert metric.summary == "Within one of the target."
    assert metric.higher_is_better
    assert metric.measure(ROWS).values.ravel().tolist() == [1.0, 0.0, 0.0]


def test_it_says_its_direction_and_range_and_nan_is_worst(folder):
    metric = find_metric("user_scores_for_test:error", (), folder)
    assert (metric.higher_is_better, metric.bounds) == (False, (0.0, 100.0))
    assert metric.measure(ROWS).values.ravel().tolist() == [0.5, 4.0, 100.0]


@pytest.mark.parametrize(("function", "what"), [("table", "float64[3, 1]"), ("words", "<U4[3]")])
def test_what_is_no_number_a_row_is_refused(folder, function, what):
    with pytest.raises(DataError, match=re.escape(f"returned {what} for 3 rows")):
        find_metric(f"user_scores_for_test:{function}", (), folder).measure(ROWS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("user_scores_for_test:nearr", "has no function 'nearr'"),
        ("no_such_module_here:near", "no module 'no_such_module_here'"),
        ("user_scores_for_test:odd", "bounds are"),
    ],
)
def test_what_is_not_there_is_named(folder, name, message):
    with pytest.raises(ConfigError, match=message):
        find_metric(name, (), folder)


def test_the_digest_follows_the_source_and_runs_nothing(folder):
    file = folder / "user_digest_for_test.py"
    file.write_text("raise RuntimeError('imported')\n")
    first = metric_source_digest("user_digest_for_test:f", (), folder)
    file.write_text("raise RuntimeError('imported again')\n")
    second = metric_source_digest("user_digest_for_test:f", (), folder)
    assert first != second
    assert len(first) == 64


def test_builtin_metrics_have_the_digest_of_their_module():
    metrics = builtin_metrics()
    digests = {metric.name: metric_source_digest(metric.name, metrics) for metric in metrics}
    assert digests["accuracy"] == digests["macro-f1"]
    assert digests["accuracy"] != digests["spearman"]


def test_what_the_function_raises_is_told_with_what_it_was_given(tmp_path):
    (tmp_path / "scores_that_raise.py").write_text("def score(outputs, columns):\n    return columns['wieght']\n")
    metric = find_metric("scores_that_raise:score", (), tmp_path)
    with pytest.raises(DataError, match="scores_that_raise:score raised KeyError: 'wieght'") as refused:
        metric.measure(ROWS)
    assert refused.value.hint == "it is given outputs: out; columns: y"


@pytest.mark.parametrize("higher", [True, False])
def test_better_than_the_best_is_refused_and_worse_than_the_worst_is_the_worst(tmp_path, higher):
    """An overlap in per cent with bounds of 0 and 1; an engine that is off by more than targets can be."""
    (tmp_path / "scores_beyond.py").write_text(
        "def score(outputs, columns):\n    return columns['y']\n"
        f"score.bounds, score.higher_is_better = (0, 1), {higher}\n"
    )
    metric = find_metric("scores_beyond:score", (), tmp_path)
    best, worst = (1.0, 0.0) if higher else (0.0, 1.0)
    for sign in (1, -1):
        found = np.array([0.5, best + sign * (best - worst) * 0.3, best + 1e-9 * (best - worst)])
        rows = Rows(outputs={"out": np.zeros((3, 1))}, columns={"y": found}, label=None)
        if sign > 0:
            with pytest.raises(DataError, match=r"for row 1$") as refused:
                metric.measure(rows)
            assert "bounds are 0 and 1" in refused.value.hint
        else:
            assert metric.measure(rows).values.ravel().tolist() == [0.5, found[1], best]
    far = Rows(outputs={"out": np.zeros((1, 1))}, columns={"y": np.array([worst - 40 * (best - worst)])}, label=None)
    assert metric.measure(far).values.item() == worst
