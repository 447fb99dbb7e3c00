"""Metrics of a whole sample that rest on rare classes: what nobody could see proves nothing."""

import numpy as np
import pytest

from qpipe.records.verdict import Decision

PASS, FAIL, OPEN = Decision.PASS, Decision.FAIL, Decision.INCONCLUSIVE


def scores(made, positives: int, rows: int = 300, lost: float = 0.0):
    """AUC of an engine whose scores differ by a hair; `lost`: share of positives that fall below all others."""
    rng = np.random.default_rng(3)
    labels = (np.arange(rows) < positives).astype(np.float64)
    reference = rng.normal(size=rows) + labels
    engine = reference + 1e-3 * rng.normal(size=rows) - 20 * labels * (np.arange(rows) < lost * positives)
    return made.outcomes(np.stack([engine, labels], 1), np.stack([reference, labels], 1), metric="auc")


def classes(made, rare: int, lost: int = 0, others: int = 300, groups: int = 0):
    """Macro-F1 of two classes, the rare one with so many rows; `lost` rows of the other are taken for it."""
    labels = np.repeat([0.0, 1.0], [rare, others])
    reference = np.where(np.arange(len(labels)) % 5 == 4, 1 - labels, labels)
    engine = reference.copy()
    engine[rare + 5 * np.arange(lost)] = 0
    engine[rare + 4 + 5 * np.arange(lost // 2)] = 1
    owner = np.arange(len(labels)) // groups if groups else None
    both = (np.stack([scores, labels], 1) for scores in (engine, reference))
    return made.outcomes(*both, metric="macro-f1", groups=owner)


@pytest.mark.parametrize(("positives", "decision"), [(100, PASS), (99, OPEN), (1, OPEN), (299, OPEN)])
def test_auc_needs_a_hundred_of_each_class(made, positives, decision):
    found = made.decide(scores(made, positives), "quality", margin=0.02)
    assert found.decision is decision
    assert (decision is PASS) == ("100 needed" not in found.reason)


@pytest.mark.parametrize(("rows", "decision"), [(298, OPEN), (299, PASS)])
def test_scores_that_differ_by_a_hair_do_not_stand_in_for_rows(made, rows, decision):
    """Each unit differs, so no guard of few differences holds; a loss of each hundredth row is in 298 by 95 %."""
    found = made.decide(scores(made, 149, rows), "quality", margin=0.01)
    assert (found.decision, found.observed is not None) == (decision, True)
    assert ("298 are too few to show a rare loss, 299 needed" in found.reason) == (decision is OPEN)


def test_auc_of_one_class_says_so(made):
    assert "of class 1" in made.decide(scores(made, 14), "quality", margin=0.02).reason
    assert "of class 1, 100 needed" in made.decide(scores(made, 14), "floor", at_least=0.5).reason


def test_a_rare_class_hides_a_loss_of_macro_f1(made):
    """Of two classes one carries half: 0.1 is lost where 0.2 of it are; 14 rows without a loss exclude that."""
    assert made.decide(classes(made, 14, 12), "quality", margin=0.1).decision is PASS
    found = made.decide(classes(made, 13, 12), "quality", margin=0.1)
    assert (found.decision, found.observed is not None) == (OPEN, True)
    assert found.reason == "macro-f1: class 0 is too rare to show its own loss: it has 13, 14 needed"
    assert made.decide(classes(made, 130, 12, others=310, groups=10), "quality", margin=0.1).decision is OPEN


def test_what_is_lost_for_all_to_see_fails(made):
    assert made.decide(classes(made, 13, 60), "quality", margin=0.02).decision is FAIL


def test_a_floor_of_macro_f1_rests_on_each_class_too(made):
    found = made.decide(classes(made, 9), "floor", at_least=0.5)
    assert found.decision is OPEN
    assert "class 0 is too rare" in found.reason
