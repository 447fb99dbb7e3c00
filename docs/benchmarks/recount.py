"""Predictions and intervals a second time, by numpy, scipy, statsmodels and onnxruntime: `verdicts.py` compares them.

Bounds come by other routes than qpipe's: Tango's score is inverted with a root finder around the root of the
restricted likelihood's slope, the bootstrap is `scipy.stats.bootstrap` with a seed and a size of its own.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime as ort
import statsmodels.api as sm
from scipy import stats
from scipy.optimize import brentq
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BATCH = 16
ALPHA, ALPHA_FAIL = 0.04, 0.025
"""Of the first look at a family whose cells take names of their own, and of FAIL."""
FEW_SHARE = 0.5
"""Of FAIL's, with few flips."""
RESAMPLES = 20_000
BOOTSTRAP_ERROR = 0.2
"""How far two bootstraps of 5,000 and 20,000 resamples may differ, in standard errors of the statistic."""
FEW_FLIPS, MANY_FLIPS = 20, 1000
MOVED, CHANCE = math.log(1.04), 0.05
"""How far a ratio may drift, and how likely that is by chance: within the processes, and from one to the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An observed value with the bound that decides PASS and the one that decides FAIL."""

    n: int
    observed: float
    low: float
    high: float
    tolerance: float = 1e-9
    """Of the bounds."""
    few: bool = False
    """Whether too few rows flipped, or would show a rare loss, for a PASS."""
    p_fail: float = 0.0

    def verdict(self, limit: float) -> str:
        """PASS above the limit, FAIL below it."""
        if self.low > limit and not self.few:
            return "PASS"
        return "FAIL" if self.high < limit and self.p_fail <= ALPHA_FAIL else "INCONCLUSIVE"


def feeds(rows: dict[str, np.ndarray], spec: dict[str, object], size: int = BATCH) -> list[dict[str, np.ndarray]]:
    """Batches in order: images as (x · scale − mean) / std, tokens cut to the longest row of their batch."""
    count = len(next(iter(rows.values())))
    found = []
    for start in range(0, count, size):
        part = {name: column[start : start + size] for name, column in rows.items()}
        if "trim" in spec:
            longest = int(part[str(spec["trim"])].sum(axis=1).max())
            found.append({name: part[name][:, :longest] for name in ("input_ids", "attention_mask")})
        else:
            image = spec["preprocess"]["image"]  # type: ignore[index]  # as YAML gives it
            mean, std = (np.array(image[key], np.float32)[:, None, None] for key in ("mean", "std"))
            found.append({"input": (part["image"].astype(np.float32) * np.float32(image["scale"]) - mean) / std})
    return found


def predict(path: Path, batches: list[dict[str, np.ndarray]]) -> np.ndarray:
    """The first output over all rows, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    halves = {one.name: "float16" in one.type for one in session.get_inputs()}
    return np.concatenate(
        [
            session.run(None, {k: v.astype(np.float16) if halves[k] else v for k, v in batch.items()})[0]
            for batch in batches
        ]
    ).astype(np.float64)


def restricted_loss_rate(gains: int, losses: int, rows: int, difference: float) -> float:
    """The most likely loss rate where gain rate − loss rate is `difference`: the root of the likelihood's slope."""
    least, most = max(0.0, -difference), (1 - difference) / 2
    ties = rows - gains - losses

    def slope(loss: float) -> float:
        return gains / (loss + difference) + losses / loss - 2 * ties / (1 - 2 * loss - difference)

    inside = (least + 1e-15, most - 1e-15)
    return float(brentq(slope, *inside, xtol=1e-16, maxiter=500)) if slope(inside[0]) > 0 > slope(inside[1]) else least


def score(gains: int, losses: int, rows: int, difference: float) -> float:
    """Score statistic of the null that gain rate − loss rate is `difference`."""
    loss = restricted_loss_rate(gains, losses, rows, difference)
    variance = rows * (2 * loss + difference - difference**2)
    return (gains - losses - rows * difference) / math.sqrt(variance) if variance > 0 else 0.0


def paired_shares(engine: np.ndarray, reference: np.ndarray, margin: float) -> Interval:
    """The difference of two shares of right rows [n], by inversion of the score test; with the guard for few flips."""
    gains, losses, rows = int((engine & ~reference).sum()), int((~engine & reference).sum()), len(engine)
    few = gains + losses < FEW_FLIPS
    share, p_fail = fail_share(gains, losses, rows, margin)
    observed = (gains - losses) / rows
    low = brentq(lambda d: score(gains, losses, rows, d) - stats.norm.isf(ALPHA), -0.9, observed - 1e-12, xtol=1e-15)
    high = brentq(
        lambda d: score(gains, losses, rows, d) - stats.norm.ppf(ALPHA_FAIL * share), observed + 1e-12, 0.9, xtol=1e-15
    )
    return Interval(
        n=rows,
        observed=observed,
        low=float(low),
        high=float(high),
        few=few and stats.binom.cdf(losses, rows, margin) > ALPHA,
        p_fail=p_fail,
    )


def fail_share(gains: int, losses: int, rows: int, margin: float) -> tuple[float, float]:
    """Which share of FAIL's error rate the upper bound takes, and the p that decides: exact where it is small."""
    by_score = float(stats.norm.cdf(score(gains, losses, rows, -margin)))
    few = FEW_SHARE if gains + losses < FEW_FLIPS else 1.0
    if by_score > ALPHA_FAIL or gains + losses >= MANY_FLIPS:
        return few, min(1.0, by_score / few)
    exact = exact_p(gains, losses, rows, margin)
    share = min(1.0, by_score / exact)
    return (max(share, FEW_SHARE) if exact <= ALPHA_FAIL else share), exact


def exact_p(gains: int, losses: int, rows: int, margin: float) -> float:
    """The largest chance of a score as low, over the flip rates in their 1 − 1e−6 confidence interval, plus 1e−6."""
    ends = stats.binomtest(gains + losses, rows).proportion_ci(1 - 1e-6)
    observed, counts = score(gains, losses, rows, -margin) + 1e-9, np.arange(min(rows, 2 * (gains + losses) + 60) + 1)
    worst = [bisect_left(range(rows - b + 1), True, key=partial(_as_low, b, rows, margin, observed)) for b in counts]
    rates = np.linspace(max(ends.low, margin), max(ends.high, margin), 300)
    chances = [
        stats.binom.pmf(counts, rows, (r - margin) / 2)
        @ stats.binom.sf(np.array(worst) - 1, rows - counts, (r + margin) / (2 - r + margin))
        for r in rates
    ]
    return min(1.0, float(max(chances)) + 1e-6)


def _as_low(gains: int, rows: int, margin: float, observed: float, losses: int) -> bool:
    return score(gains, losses, rows, -margin) <= observed


def paired_spearman(engine: np.ndarray, reference: np.ndarray, scores: np.ndarray, margin: float) -> Interval:
    """The difference of two rank correlations by BCa over pairs, the same resamples for both."""

    def change(index: np.ndarray, axis: int = -1) -> np.ndarray:
        ranks = [stats.rankdata(values[index.astype(int)], axis=axis) for values in (engine, reference, scores)]
        ours, theirs, wanted = ((one - one.mean(axis=axis, keepdims=True)) for one in ranks)
        norms = [np.sqrt((one**2).sum(axis=axis)) for one in (ours, theirs, wanted)]
        first = (ours * wanted).sum(axis=axis) / (norms[0] * norms[2])
        return first - (theirs * wanted).sum(axis=axis) / (norms[1] * norms[2])

    rows = (np.arange(len(scores)),)
    options = {"method": "BCa", "vectorized": True, "batch": 200}
    one = stats.bootstrap(
        rows,
        change,
        n_resamples=RESAMPLES,
        confidence_level=1 - ALPHA,
        alternative="greater",
        rng=np.random.default_rng(20_261_122),
        **options,
    )
    other = stats.bootstrap(
        rows,
        change,
        n_resamples=0,
        bootstrap_result=one,
        confidence_level=1 - ALPHA_FAIL,
        alternative="less",
        **options,
    )
    observed = stats.spearmanr(engine, scores).statistic - stats.spearmanr(reference, scores).statistic
    return Interval(
        n=len(scores),
        observed=float(observed),
        low=float(one.confidence_interval.low),
        high=float(other.confidence_interval.high),
        tolerance=BOOTSTRAP_ERROR * float(one.standard_error),
        p_fail=float((np.asarray(one.bootstrap_distribution) >= -margin).mean()),
    )


def linked_groups(group: np.ndarray, *inputs: np.ndarray) -> np.ndarray:
    """The group of each row, [n], where groups that share a row with the same inputs are one."""
    named = np.unique(group, return_inverse=True)[1]
    same = np.unique(np.concatenate(inputs, axis=1), axis=0, return_inverse=True)[1].ravel()
    links = coo_array((np.ones(len(named)), (named, named.max() + 1 + same)), shape=(len(named) * 2,) * 2)
    return connected_components(links, directed=False)[1][named]


def cosine_level(values: np.ndarray, groups: np.ndarray, limit: float) -> Interval:
    """A mean cosine over groups with Student's bounds, or those by Hall's transformation where they are wider.

    PASS needs rows that would show a rare one of −1: the product of 1 + (x − limit) / (1 + limit) over the groups'
    means x, raised to the share that groups of such sizes are worth (Kish), reaches 1 / α.
    """
    fitted = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    sizes, residues = np.bincount(groups), np.bincount(groups, weights=values - values.mean())
    sizes, residues = sizes[sizes > 0], residues[np.bincount(groups) > 0]
    count = len(sizes)
    skew, freedom, error = stats.moment(residues, 3) / stats.moment(residues, 2) ** 1.5, count - 1, float(fitted.bse[0])
    skew /= math.sqrt(count)
    means = values.mean() + residues / sizes
    worth = len(values) ** 2 / float((sizes**2).sum()) / count
    won = worth * float(np.log1p((means - limit) / (1 + limit)).sum())
    by_t = [stats.t.ppf(q, freedom) for q in (ALPHA, 1 - ALPHA_FAIL)]

    def straight(t: float) -> float:
        return t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6

    bent = [brentq(lambda t, q=q: straight(t) - stats.t.ppf(1 - q, freedom), -50, 50) for q in (ALPHA, 1 - ALPHA_FAIL)]
    low, high = (values.mean() + error * end for end in (min(by_t[0], -bent[0]), max(by_t[1], -bent[1])))
    few = won < -math.log(ALPHA)
    return Interval(n=len(values), observed=float(values.mean()), low=float(low), high=float(high), few=few)


def speedup(samples: Path) -> Interval | str:
    """Float engine / engine from raw samples, t over processes; or why they decide nothing."""
    with np.load(samples) as found:
        wall, process, engine = (found[name] for name in ("wall_ns", "process", "engine"))
        batch, matched = found["batch"], bool(found["outputs_match"][:, -1].all())
    if not matched or len(np.unique(batch)) > 1:
        return "other outputs, or several batch sizes"
    last = engine.max()
    times = [[wall[(engine == which) & (process == one)] for which in (0, last)] for one in np.unique(process)]
    logs = np.array([math.log(np.median(theirs) / np.median(ours)) for theirs, ours in times])
    thirds = np.array([[np.median(part) for part in np.array_split(one, 3)] for pair in times for one in pair])
    changes = np.diff(np.log(thirds[::2] / thirds[1::2])[:, [0, 2]]).ravel()
    if abs(changes.mean()) * 1.5 > MOVED and stats.ttest_1samp(changes, 0).pvalue < CHANCE:
        return "drifted"
    places = np.arange(len(logs))
    shapes = [places / places[-1], *(places >= one for one in places[1:])]
    fits = [stats.linregress(shape.astype(float), logs) for shape in shapes]
    best = min(fits, key=lambda one: one.pvalue)
    if abs(best.slope) > MOVED and best.pvalue * len(fits) < CHANCE:
        return "drifted"
    error = stats.sem(logs)
    low, high = (logs.mean() + stats.t.ppf(q, len(logs) - 1) * error for q in (ALPHA, 1 - ALPHA_FAIL))
    return Interval(n=len(logs), observed=math.exp(logs.mean()), low=math.exp(low), high=math.exp(high))


def integer_share(path: Path) -> float:
    """Integer kernels among convolutions and products of the graph that onnxruntime really runs."""
    import onnx

    with TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.optimized_model_filepath = f"{folder}/optimized.onnx"
        options.log_severity_level = 3
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        ops = [node.op_type for node in onnx.load(f"{folder}/optimized.onnx").graph.node]
    integer = sum(op in ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat") for op in ops)
    return integer / (integer + sum(op in ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul") for op in ops))


def row_cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each row with its partner, [n]."""
    return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
