"""Losses that nothing bounds and that a sample need not show: what MAE, RMSE and ratios of speed pass at their margin.

The rates of docs/gates.md: `python -m pytest -m slow -s tests/gates/test_unseen_losses.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qpipe.gates.estimates import losses
from qpipe.gates.estimates.estimate import Estimate
from qpipe.gates.estimates.losses import guard_unseen
from qpipe.gates.statistics import latency
from qpipe.plugins.gate import Alpha

Draw = Callable[[np.random.Generator, int], np.ndarray]
SIGMA = 1.5


def lognormal(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.lognormal(0, SIGMA, rows) - np.exp(SIGMA**2 / 2)


def one_percent(times: float) -> Draw:
    """Of the rest's standard deviation."""
    return lambda rng, rows: rng.normal(size=rows) + times * ((rng.random(rows) < 0.01) - 0.01)


def mean_zero(kind: str) -> Draw:
    """Losses in units of their standard deviation where that is finite and no matter of taste."""
    laws: dict[str, Draw] = {
        "normal": lambda rng, rows: rng.normal(size=rows),
        "Laplace": lambda rng, rows: rng.laplace(size=rows) / np.sqrt(2),
        "t3": lambda rng, rows: rng.standard_t(3, rows) / np.sqrt(3),
        "lognormal": lognormal,
        "1 % lose 100 times": one_percent(100),
        "1 % lose 30 times": one_percent(30),
        "1 % lose 10 times": one_percent(10),
    }
    return laws[kind]


def mae_passes(made, kind: str, rows: int, *, margin: float, mean: float, runs: int, seed: int = 0) -> float:
    """Share of runs in which the gate passes: each row of the engine loses `mean` and what the law says."""
    rng, draw, passed = np.random.default_rng(seed), mean_zero(kind), 0
    for _ in range(runs):
        reference = 50 + np.abs(rng.normal(size=rows))
        of = made.outcomes(reference + mean + draw(rng, rows), reference, metric="mae")
        passed += made.decide(of, "quality", margin=margin).decision == "PASS"
    return passed / runs


def rmse_passes(made, kind: str, rows: int, runs: int) -> float:
    """Of residuals that are 5 % larger in the engine, with a margin of just so much."""
    residuals: dict[str, tuple[Draw, float]] = {
        "normal": (lambda rng, n: rng.normal(size=n), 1.0),
        "t3": (lambda rng, n: rng.standard_t(3, n), 3**0.5),
        "lognormal": (lambda rng, n: rng.lognormal(0, 1, n), float(np.e)),
    }
    draw, root = residuals[kind]
    rng, passed = np.random.default_rng(1), 0
    for seed in range(runs):
        found = draw(rng, rows)
        of = made.outcomes(np.square(1.05 * found), np.square(found), metric="rmse", seed=seed)
        passed += made.decide(of, "quality", margin=0.05 * root).decision == "PASS"
    return passed / runs


def alone_and_now(made, monkeypatch, kind: str, rows: int, **at: float) -> tuple[float, float]:
    """Rates of PASS by t and Hall's transformation alone, and with what is taken for granted of unseen rows."""
    now = mae_passes(made, kind, rows, **at)
    with monkeypatch.context() as patched:
        patched.setattr(losses, "UNSEEN", 0.0)
        return mae_passes(made, kind, rows, **at), now


def test_lognormal_losses_at_the_margin_pass_seldom(made, monkeypatch):
    alone, now = alone_and_now(made, monkeypatch, "lognormal", 200, margin=5.0, mean=5.0, runs=150)
    assert now <= alone - 0.02
    assert now <= 0.07


def test_normal_noise_passes_with_as_many_rows_as_by_t_alone(made, monkeypatch):
    alone, now = alone_and_now(made, monkeypatch, "normal", 200, margin=0.2, mean=0.0, runs=100)
    assert alone >= now >= alone - 0.02 >= 0.8


def errors(change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    reference = np.full(len(change), 5.0)
    return reference + change, reference


def test_a_pass_says_what_it_takes_for_granted(made):
    change = np.tile([-0.1, 0.1], 75)
    found = made.decide(made.outcomes(*errors(change), metric="mae"), "quality", margin=0.1)
    assert found.decision.value == "PASS"
    # Of 150 rows 3 = -ln .05 may be unseen, one in 50, and a margin of the worst change is 50 of these.
    said = "if rare rows (1 in 50, which 150 rows need not show) are less than 50 times as bad as the worst one here"
    assert said in found.reason


CHANGE = np.r_[np.full(140, 0.1), np.full(10, -1.1)]
"""Gains of .02 in the mean; the worst row takes 1.12 / 150 more than that off it."""


def guarded(limit: float, groups: np.ndarray | None = None, times: int = 1) -> Estimate:
    change = np.repeat(CHANGE, times)
    found = Estimate(n=len(change), observed=float(change.mean()), low=1.0)
    return guard_unseen(found, change, groups, Alpha(), limit=limit)


def test_rows_that_break_a_mean_when_twice_as_bad_as_the_worst_let_nothing_pass():
    unseen = -np.log(0.05) / 150 * 1.12
    kept, broken = guarded(0.02 - 2.1 * unseen), guarded(0.02 - 1.9 * unseen)
    assert (kept.no_pass, "less than 2.1 times as bad" in kept.granted) == ("", True)
    assert (
        broken.no_pass
        == "rare rows (1 in 50, which 150 rows need not show) break it if they are 1.9 times as bad "
        + ("as the worst one here")
    )
    assert broken.at_least == int(np.ceil(150 * 2 / 1.9)) > 150 > kept.at_least


def test_groups_count_once():
    one, two = guarded(-0.02), guarded(-0.02, np.arange(300) // 2, 2)
    assert one.no_pass.replace("rows", "groups") == two.no_pass != ""
    assert two.at_least == 2 * one.at_least


def test_a_level_and_an_rmse_say_it_too(made):
    found = np.full(150, 4.0) + np.tile([-0.1, 0.1], 75)
    for metric in ("mae", "rmse"):
        verdict = made.decide(made.outcomes(found, found, metric=metric), "floor", at_most=6.0)
        assert verdict.decision.value == "PASS"
        assert "1 in 50, which 150 rows need not show" in verdict.reason, metric


SHOWN = ("normal", "Laplace", "t3", "lognormal", "1 % lose 100 times", "1 % lose 30 times", "1 % lose 10 times")
AT = {"lognormal": 5.0, "1 % lose 100 times": 1.0, "1 % lose 30 times": 0.3, "1 % lose 10 times": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHOWN)
def test_rates_at_the_margin_and_power(made, monkeypatch, kind):
    margin = AT.get(kind, 0.25)
    for rows in (100, 200, 500):
        for mean in (margin, 0.0):
            alone, now = alone_and_now(made, monkeypatch, kind, rows, margin=margin, mean=mean, runs=500)
            print(f"{kind:20} {rows:5} rows, mean loss {mean:4}: alone {alone:.3f}, now {now:.3f}")
            assert now <= alone


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["normal", "t3", "lognormal"])
def test_rates_of_rmse_at_the_margin(made, monkeypatch, kind):
    for unseen in (0.0, 2.0):
        monkeypatch.setattr(losses, "UNSEEN", unseen)
        print(f"RMSE of {kind} residuals, 200 rows, unseen {unseen}: {rmse_passes(made, kind, 200, 100):.2f}")


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.005, 0.025])
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_rates_of_a_speedup_whose_mean_is_at_the_limit(spread, share):
    """One process in ten 20 % slower: how often t passes, and the same with the median process at the limit."""
    rng, slow = np.random.default_rng(0), np.log(1.2)
    for count in (3, 5, 10):
        logs = rng.normal(0, spread, (4000, count)) + slow * (rng.random((4000, count)) < share)
        rates = []
        for centre in (share * slow, 0.0):
            rates.append(np.mean([latency.ratio_bounds(one - centre)[2] < 1 for one in logs]))
        print(f"{share:.0%} slower, spread {spread}, {count} processes: mean {rates[0]:.3f}, typical {rates[1]:.3f}")
        assert rates[1] <= 0.07
