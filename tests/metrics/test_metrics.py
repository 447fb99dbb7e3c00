"""Metrics against independent computations (scikit-learn, scipy), and their errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, mean_absolute_error, roc_auc_score, root_mean_squared_error, top_k_accuracy_score

from qpipe.errors import ConfigError, DataError
from qpipe.metrics import TASKS, builtin_metrics, compare_rows, find_metric, is_labelled, measure_units
from qpipe.plugins.metric import Metric, Rows

METRICS = {metric.name: metric for metric in builtin_metrics()}


def rows(output: np.ndarray, label: np.ndarray | None = None, **columns: np.ndarray) -> Rows:
    if label is not None:
        columns["label"] = label
    return Rows(outputs={"out": output}, columns=columns, label=None if label is None else "label")


def value(metric: Metric, of: Rows) -> float:
    return metric.aggregate(metric.measure(of).values)


@pytest.fixture
def logits() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 10, 700)
    scores = rng.normal(size=(700, 10)).astype(np.float32)
    scores[np.arange(700), labels] += 1.5
    return scores, labels


def test_every_task_brings_a_builtin_metric():
    assert set(TASKS.values()) <= set(METRICS)


def test_accuracy_is_the_share_of_right_argmaxes(logits):
    scores, labels = logits
    assert value(METRICS["accuracy"], rows(scores, labels)) == (scores.argmax(1) == labels).mean()


def test_accuracy_breaks_ties_as_argmax_does():
    scores = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    assert METRICS["accuracy"].measure(rows(scores, np.array([0, 1]))).values.ravel().tolist() == [1.0, 0.0]


@pytest.mark.parametrize("k", [3, 5])
def test_top_k_as_scikit_learn(logits, k):
    scores, labels = logits
    expected = top_k_accuracy_score(labels, scores, k=k)
    assert value(METRICS[f"top-{k}"], rows(scores, labels)) == pytest.approx(expected, abs=0)


def test_macro_f1_as_scikit_learn(logits):
    scores, labels = logits
    expected = f1_score(labels, scores.argmax(1), average="macro")
    assert value(METRICS["macro-f1"], rows(scores, labels)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("two", [True, False])
def test_auc_with_ties_as_scikit_learn(two):
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 300)
    scores = np.round(rng.normal(size=300) + labels, 1)
    output = np.stack([-scores / 2, scores / 2], axis=1) if two else scores[:, None]
    assert value(METRICS["auc"], rows(output, labels)) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_mae_and_rmse_as_scikit_learn():
    rng = np.random.default_rng(5)
    wanted, found = rng.normal(size=(80, 3)), rng.normal(size=(80, 3))
    assert value(METRICS["mae"], rows(found, wanted)) == pytest.approx(mean_absolute_error(wanted, found))
    one = found[:, :1], wanted[:, 0]
    assert value(METRICS["rmse"], rows(*one)) == pytest.approx(root_mean_squared_error(one[1], one[0][:, 0]))
    assert not METRICS["mae"].higher_is_better
    assert not METRICS["rmse"].higher_is_better


def test_cosine_with_target_vectors():
    output = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    wanted = np.array([[2.0, 0.0], [-3.0, -3.0], [1.0, 0.0]])
    assert METRICS["cosine"].measure(rows(output, wanted)).values.ravel() == pytest.approx([1.0, -1.0, 0.0])


def pairs(seed: int = 6, count: int = 250) -> Rows:
    rng = np.random.default_rng(seed)
    embedding = rng.normal(size=(2 * count, 16)).astype(np.float32)
    score = np.repeat(np.round(rng.uniform(0, 5, count), 1), 2)
    shuffled = rng.permutation(2 * count)
    pair = np.repeat(np.arange(count), 2)
    return Rows(
        outputs={"embedding": embedding[shuffled]},
        columns={"pair": pair[shuffled], "score": score[shuffled]},
        label=None,
    )


def test_spearman_of_shuffled_pairs_as_scipy():
    found = pairs()
    embedding, pair, score = found.outputs["embedding"], found.columns["pair"], found.columns["score"]
    cosines, scores = [], []
    for one in np.unique(pair):
        first, second = embedding[pair == one].astype(np.float64)
        cosines.append(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
        scores.append(score[pair == one][0])
    assert value(METRICS["spearman"], found) == pytest.approx(spearmanr(cosines, scores).statistic, abs=1e-12)


def test_units_of_pairs_are_in_the_order_of_their_first_rows():
    found = METRICS["spearman"].measure(pairs())
    assert (np.diff(found.rows) > 0).all()
    assert len(found.rows) == 250


@pytest.mark.parametrize("name", ["accuracy", "macro-f1", "auc", "mae", "rmse", "spearman"])
def test_many_resamples_at_once_equal_one_by_one(name):
    rng = np.random.default_rng(7)
    n = 60
    values = {
        "accuracy": rng.integers(0, 2, (n, 1)),
        "macro-f1": rng.integers(0, 5, (n, 2)) - np.array([1, 0]),
        "auc": np.stack([rng.integers(0, 9, n), rng.integers(0, 2, n)], axis=1),
        "spearman": rng.integers(0, 12, (n, 2)),
    }.get(name, rng.random((n, 1)))
    values = values.astype(np.float64)
    counts = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(20)]).astype(np.float64)
    metric = METRICS[name]
    one_by_one = [metric.aggregate(np.repeat(values, row.astype(int), axis=0)) for row in counts]
    assert metric.aggregate_weighted is not None
    assert metric.aggregate_weighted(values, counts) == pytest.approx(one_by_one, abs=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_of_no_rows_is_undefined(name):
    metric, none = METRICS[name], np.empty((0, 2))
    assert np.isnan(metric.aggregate(none))
    assert np.isnan(metric.aggregate_weighted(none, np.empty((3, 0)))).all()


@pytest.mark.parametrize("name", METRICS)
def test_bounds_are_what_the_best_and_the_worst_model_get(name):
    """Ten rows of eight classes; of two for auc; four numbers of a row, or pairs of rows."""
    metric, rng = METRICS[name], np.random.default_rng(0)
    label, numbers, pair = np.arange(10) % 8, rng.normal(size=(10, 4)), np.repeat(np.arange(5), 2)
    if name == "spearman":
        angle = np.where(np.arange(10) % 2 == 0, 0.0, np.arange(10) / 10)
        made = [
            Rows(
                outputs={"e": np.stack([np.cos(angle), np.sin(angle)], 1)},
                columns={"pair": pair, "score": score},
                label=None,
            )
            for score in (-pair, pair)
        ]
    elif name == "auc":
        made = [rows(sign * (label % 2.0), label % 2) for sign in (1, -1)]
    elif metric.classifies:
        made = [rows(sign * np.eye(8)[label], label) for sign in (1, -1)]
    else:
        made = [rows(sign * numbers, numbers) for sign in (1, -1)]
    best, worst = (value(metric, one) for one in made)
    low, high = metric.bounds if metric.higher_is_better else metric.bounds[::-1]
    assert best == pytest.approx(high)
    assert worst == pytest.approx(low) if np.isfinite(low) else worst > best


def test_spearman_of_a_constant_column_is_undefined():
    values = np.stack([np.arange(5.0), np.ones(5)], axis=1)
    assert np.isnan(METRICS["spearman"].aggregate(values))


@pytest.mark.parametrize(
    ("name", "bad", "expected"),
    [("accuracy", np.nan, 0.0), ("top-3", np.inf, 0.0), ("mae", np.nan, np.inf), ("rmse", np.inf, np.inf)],
)
def test_outputs_that_are_not_finite_count_as_worst(name, bad, expected):
    if name in ("mae", "rmse"):
        found = METRICS[name].measure(rows(np.array([[bad], [1.0]]), np.array([1.0, 1.0])))
    else:
        scores = np.array([[9.0, bad, 0.0, 0.0], [0.0, 9.0, 0.0, 0.0]])
        found = METRICS[name].measure(rows(scores, np.array([0, 1])))
    assert found.values[0, 0] == expected
    assert np.isfinite(found.values[1, 0])


def test_macro_f1_of_a_row_that_is_not_finite_is_wrong():
    scores = np.array([[np.nan, 1.0], [0.0, 1.0]])
    assert METRICS["macro-f1"].measure(rows(scores, np.array([1, 1]))).values[:, 0].tolist() == [-1.0, 1.0]


def test_spearman_with_a_row_that_is_not_finite_is_undefined():
    found = pairs()
    broken = found.outputs["embedding"].copy()
    broken[3, 0] = np.nan
    assert np.isnan(value(METRICS["spearman"], Rows(outputs={"e": broken}, columns=found.columns, label=None)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1, 10]), r"label 10 of row 2 is out of range: the model has 10 classes"),
        (np.array([0, -1, 11]), r"label -1 of row 1 is out of range.*and 1 more rows"),
        (np.array([0.0, 0.5, 1.0]), r"label 0.5 of row 1 is not an integer"),
        (np.array(["a", "b", "c"]), r"accuracy needs class numbers"),
        (np.eye(3), r"shape \[3, 3\]"),
    ],
)
def test_labels_that_cannot_be_are_named(labels, message):
    with pytest.raises(DataError, match=message) as found:
        METRICS["accuracy"].measure(rows(np.zeros((3, 10)), labels))
    if "the model has" in message:
        assert found.value.hint.startswith("labels are class numbers from 0 to 9;")


def test_integral_float_labels_are_accepted():
    found = METRICS["accuracy"].measure(rows(np.eye(3), np.array([0.0, 1.0, 0.0])))
    assert found.values.ravel().tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3, 2)])
def test_outputs_that_are_no_class_scores_are_refused(shape):
    with pytest.raises(DataError, match="class scores"):
        METRICS["accuracy"].measure(rows(np.zeros(shape), np.zeros(4, dtype=int)))


def test_top_k_of_too_few_classes_is_refused():
    with pytest.raises(DataError, match="top-5 of 4 classes is always right"):
        METRICS["top-5"].measure(rows(np.zeros((2, 4)), np.zeros(2, dtype=int)))


def test_a_missing_column_is_named_with_those_there():
    found = Rows(outputs={"e": np.zeros((2, 3))}, columns={"score": np.ones(2)}, label=None)
    with pytest.raises(DataError, match="needs the column 'pair'; the data has: score"):
        METRICS["spearman"].measure(found)


def test_a_pair_with_another_number_of_rows_is_named():
    columns = {"pair": np.array([4, 4, 7, 7, 7]), "score": np.ones(5)}
    with pytest.raises(DataError, match=r"pair 7 has 3 rows \(first: row 2\)"):
        METRICS["spearman"].measure(Rows(outputs={"e": np.ones((5, 2))}, columns=columns, label=None))


def test_a_pair_with_two_scores_is_named():
    columns = {"pair": np.array([4, 4, 7, 7]), "score": np.array([1.0, 1.0, 2.0, 3.0])}
    with pytest.raises(DataError, match="pair 7: rows 2 and 3 have the scores 2 and 3"):
        METRICS["spearman"].measure(Rows(outputs={"e": np.ones((4, 2))}, columns=columns, label=None))


def test_labels_of_another_shape_are_refused():
    with pytest.raises(DataError, match="labels have 2 numbers per row, the judged output has 3"):
        METRICS["mae"].measure(rows(np.zeros((4, 3)), np.zeros((4, 2))))


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        find_metric("acuracy", METRICS.values())


def test_rows_without_labels_have_empty_units():
    found = Rows(outputs={"out": np.zeros((5, 3))}, columns={}, label=None)
    assert not is_labelled(METRICS["accuracy"], found)
    assert measure_units(METRICS["accuracy"], found).values.shape == (5, 0)


def test_a_label_column_that_is_not_there_is_an_error_and_not_unlabelled():
    found = Rows(outputs={"out": np.zeros((5, 3))}, columns={}, label="y")
    with pytest.raises(DataError, match="needs the column 'y'"):
        measure_units(METRICS["accuracy"], found)


def test_agreement_of_classifiers_is_of_the_top_class():
    ours = rows(np.array([[1.0, 0.0], [0.0, 1.0], [np.nan, 0.0], [np.nan, 0.0]]))
    theirs = rows(np.array([[5.0, 0.0], [1.0, 0.0], [1.0, 0.0], [np.nan, 0.0]]))
    assert compare_rows(METRICS["accuracy"], ours, theirs).tolist() == [1.0, 0.0, 0.0, 0.0]


def test_one_number_a_row_has_no_agreement():
    """Its cosine is its sign: 1 for every price, whatever the engine says."""
    ours, theirs = rows(np.array([[100.0], [9e9], [0.0]])), rows(np.array([[1.0], [2.0], [3.0]]))
    assert np.isnan(compare_rows(METRICS["mae"], ours, theirs)).all()


def test_agreement_of_others_is_the_cosine():
    ours = rows(np.array([[1.0, 0.0], [1.0, 0.0], [np.nan, 0.0], [0.0, 0.0], [1e30, 1e30]]))
    theirs = rows(np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1e30, 1e30]]))
    assert compare_rows(METRICS["mae"], ours, theirs) == pytest.approx([1.0, 0.0, -1.0, 1.0, 1.0])


@pytest.mark.parametrize("name", ["mae", "rmse", "cosine"])
def test_targets_in_another_order_of_axes_are_refused(name):
    output = np.arange(24.0).reshape(2, 3, 4)
    with pytest.raises(DataError, match=r"labels have the shape \[2, 4, 3\], the judged output \[2, 3, 4\]"):
        METRICS[name].measure(rows(output, output.transpose(0, 2, 1)))
    for alike in (output.reshape(2, 12), output[:, None], output.reshape(2, 3, 1, 4)):
        assert METRICS[name].measure(rows(output, alike)).values.tolist() == (
            METRICS[name].measure(rows(output, output)).values.tolist()
        )


def test_what_no_built_in_metric_reads_is_refused_with_what_to_do():
    scores, several = np.ones((3, 4)), np.ones((3, 4), int)
    missing = np.where(np.eye(3, 4) > 0, np.nan, 1.0)
    for name, output, label, hint in (
        ("accuracy", scores, several, "one score per row"),
        ("accuracy", np.ones((3, 4, 5)), several, "each row's share of right ones"),
        ("accuracy", np.ones((3, 1)), np.ones(3, int), "metric: auc"),
        ("accuracy", scores, np.full(3, -100), "leave rows without a label out"),
        ("auc", scores, several, "several labels a row"),
        ("mae", scores, missing, "where some of several are missing"),
        ("mae", scores, np.ones(3), "one target per number of the output"),
    ):
        with pytest.raises(DataError) as refused:
            METRICS[name].measure(rows(output, label))
        assert hint in refused.value.hint, (name, refused.value.hint)
