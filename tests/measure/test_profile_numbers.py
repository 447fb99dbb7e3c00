from __future__ import annotations

import math

import numpy as np
import pytest

from qpipe.errors import EngineError, StoreError
from qpipe.measure.profile import order_statistics, ratio, summarize
from qpipe.measure.samples import Samples, load_samples, merge_samples, save_samples, select_samples
from qpipe.records import codec
from qpipe.records.evidence import Profile


def samples(
    seed: int = 0, *, slower: float = 2.0, drift: float = 0.0, rounds: int = 40, noise: float = 0.01
) -> Samples:
    """One process: a float engine of about 10 ms and another that is `slower` times it, at batch size 1."""
    random = np.random.default_rng(seed)
    base = 1e7 * (1 + noise * random.normal(size=rounds)) * (1 + drift * np.arange(rounds) / rounds)
    other = slower * base * (1 + noise * random.normal(size=rounds))
    wall = np.stack([base, other], axis=1).ravel().astype(np.int64)
    return Samples(
        engines=np.array(["none", "int8"]),
        process=np.zeros(2 * rounds, np.int64),
        block=np.repeat(np.arange(rounds) * 4 // rounds, 2),
        batch=np.ones(2 * rounds, np.int64),
        engine=np.tile([0, 1], rounds),
        wall_ns=wall,
        cpu_ns=wall // 2,
        load_ms=np.array([[3.0, 4.0]]),
        outputs_match=np.array([[True, True]]),
    )


def run(count: int = 5, **shape: float) -> Samples:
    return merge_samples(samples(seed, **shape) for seed in range(count))


def test_bounds_of_p95_at_200_are_the_185th_and_196th():
    _, low, high = order_statistics(np.random.default_rng(0).permutation(np.arange(1.0, 201.0)).reshape(5, 40), 0.95)
    assert (low, high) == (185, 196)


@pytest.mark.parametrize(("count", "bounded"), [(298, False), (299, True)])
def test_p99_needs_299_samples_for_an_upper_bound(count, bounded):
    assert (order_statistics(np.arange(float(count)), 0.99)[2] is not None) == bounded


@pytest.mark.parametrize("q", [0.5, 0.9, 0.95])
def test_bounds_hold_in_95_of_100_cases(q):
    random = np.random.default_rng(1)
    truth = -math.log(1 - q)
    found = [order_statistics(random.exponential(size=200), q) for _ in range(2000)]
    below = np.mean([low <= truth for _, low, _ in found if low is not None])
    above = np.mean([high >= truth for _, _, high in found if high is not None])
    # At least 95 %; ranks are whole numbers, so a little more. 0.015 is three standard errors.
    assert 0.935 < below < 0.985
    assert 0.935 < above < 0.985


def test_the_ratio_is_the_geometric_mean_with_four_degrees_of_freedom():
    logs = (0.1, 0.2, 0.3, 0.4, 0.5)
    found = ratio(logs)
    half = 2.131847 * math.sqrt(0.025) / math.sqrt(5)
    assert found.median == pytest.approx(math.exp(0.3))
    assert found.low == pytest.approx(math.exp(0.3 - half), rel=1e-6)
    assert found.high == pytest.approx(math.exp(0.3 + half), rel=1e-6)


def test_one_process_gives_no_interval():
    assert ratio((0.1,)) is None


def test_a_profile_of_five_processes():
    found = summarize(
        run(), baseline="none", threads=1, peak_rss_bytes={"int8": (1, 2, 3)}, conditions=(("cpu", "x"),), voided=1
    )
    profile = found["int8"]
    (batch,) = profile.batches
    assert batch.ratio.low < 2 < batch.ratio.high
    assert batch.ratio.high - batch.ratio.low < 0.05
    assert batch.cpu_ratio.median == pytest.approx(batch.ratio.median, rel=1e-6)
    assert len(batch.log_ratios) == 5
    assert dict(batch.latency_ms)["p50"].value == pytest.approx(20, rel=0.02)
    assert dict(batch.baseline_ms)["p50"].value == pytest.approx(10, rel=0.02)
    assert (profile.processes, profile.rounds, batch.samples) == (5, 40, 200)
    assert (profile.load_ms, profile.peak_rss_bytes, profile.voided) == (4, (1, 2, 3), 1)
    assert (profile.drifted, profile.outputs_match) == (False, True)
    assert codec.decode(Profile, codec.encode(profile)) == profile


def test_the_baseline_has_no_ratio_to_itself():
    batch = summarize(run(), baseline="none", threads=1)["none"].batches[0]
    assert (batch.ratio, batch.cpu_ratio, batch.log_ratios) == (None, None, ())


def test_drift_of_the_ratio_is_told_and_drift_of_both_is_not():
    parts = [samples(seed, drift=0.5) for seed in range(5)]
    assert not summarize(merge_samples(parts), baseline="none", threads=1)["int8"].drifted
    slower = [samples(seed, slower=2 + 0.2 * seed) for seed in range(5)]
    found = summarize(merge_samples(slower), baseline="none", threads=1)
    assert found["int8"].drifted
    assert "the ratio to float moved by +40 %" in found["int8"].drift
    assert (found["none"].drifted, found["none"].drift) == (False, "")


def test_other_bounds_may_be_brought():
    found = summarize(run(), baseline="none", threads=1, bounds=lambda matrix, _: (float(matrix.size), None, 7.0))
    percentile = dict(found["int8"].batches[0].latency_ms)["p99"]
    assert (percentile.value, percentile.low, percentile.high) == (200, None, 7)


def test_one_wrong_output_in_one_process_is_remembered():
    bad = samples(1)
    bad = Samples(**{name: getattr(bad, name) for name in bad.__slots__} | {"outputs_match": np.array([[True, False]])})
    found = summarize(merge_samples([samples(0), bad]), baseline="none", threads=1)
    assert found["none"].outputs_match
    assert not found["int8"].outputs_match


def test_samples_survive_the_file(tmp_path):
    save_samples(tmp_path / "profile.npz", run(2))
    read = load_samples(tmp_path / "profile.npz")
    for name in read.__slots__:
        np.testing.assert_array_equal(getattr(read, name), getattr(run(2), name))


def test_a_foreign_file_is_refused(tmp_path):
    np.savez(tmp_path / "profile.npz", wall_ns=np.arange(3))
    with pytest.raises(StoreError, match=r"profile\.npz"):
        load_samples(tmp_path / "profile.npz")


def test_a_cells_share_of_the_samples():
    both = run(2)
    one = select_samples(both, ["int8"])
    assert one.engines.tolist() == ["int8"]
    np.testing.assert_array_equal(one.matrix_ms("int8", 1), both.matrix_ms("int8", 1))
    turned = select_samples(both, ["int8", "none"])
    np.testing.assert_array_equal(turned.matrix_ms("none", 1), both.matrix_ms("none", 1))


def test_processes_with_different_rounds_share_the_first_of_each_block():
    both = merge_samples([samples(0, rounds=40), samples(1, rounds=80)])
    matrix = both.matrix_ms("none", 1)
    assert matrix.shape == (2, 40)
    long = both.times_ms("none", 1, 1)
    np.testing.assert_array_equal(matrix[1], np.concatenate([long[start : start + 10] for start in (0, 20, 40, 60)]))


def test_what_was_not_timed_has_no_profile():
    with pytest.raises(EngineError, match="'fp16' was not timed"):
        summarize(run(2), baseline="fp16", threads=1)


def by_hand() -> Samples:
    """Three processes, two batch sizes of other numbers of rounds, one long run in each; CPU time goes its own way."""
    parts = []
    for process in range(3):
        columns = []
        for size, rounds in ((1, 6), (4, 4)):
            for number in range(rounds):
                for engine, ms in enumerate((10 * size + process, 4 * size + 2 * process)):
                    long = 50 if number == rounds - 1 else 0
                    columns.append((number % 2, size, engine, (ms + 0.01 * number + long) * 1e6, (size + engine) * 1e6))
        block, batch, engine, wall, cpu = np.array(columns).T.astype(np.int64)
        parts.append(
            Samples(
                engines=np.array(["none", "int8"]),
                process=np.zeros(len(wall), np.int64),
                block=block,
                batch=batch,
                engine=engine,
                wall_ns=wall,
                cpu_ns=cpu,
                load_ms=np.array([[(3.0, 100.0, 4.0)[process], (9.0, 5.0, 70.0)[process]]]),
                outputs_match=np.array([[True, process != 1]]),
            )
        )
    return merge_samples(parts)


def test_every_number_stands_where_it_belongs():
    taken = by_hand()
    found = summarize(taken, baseline="none", threads=2, kind="emulated")
    assert {name: (one.load_ms, one.outputs_match) for name, one in found.items()} == {
        "none": (4, True),
        "int8": (9, False),
    }
    profile = found["int8"]
    assert (profile.kind, profile.threads, profile.rounds, profile.processes) == ("emulated", 2, 4, 3)
    for batch, rounds in zip(profile.batches, (6, 4), strict=True):
        middle = 0.005 * (rounds - 1)
        own, base = ([factor * batch.batch + step * process + middle for process in range(3)] for factor, step in RATES)
        assert batch.log_ratios == pytest.approx([math.log(a / b) for a, b in zip(own, base, strict=True)])
        assert batch.ratio.median == pytest.approx(math.exp(np.mean(batch.log_ratios)))
        assert batch.cpu_ratio.median == pytest.approx((batch.batch + 1) / batch.batch)
        assert batch.samples == 3 * rounds
        for name, percentiles in (("int8", batch.latency_ms), ("none", batch.baseline_ms)):
            every = np.concatenate([taken.times_ms(name, batch.batch, process) for process in range(3)])
            assert len(every) == 3 * rounds
            assert {key: one.value for key, one in percentiles} == pytest.approx(
                {f"p{q}": np.quantile(every, q / 100) for q in (50, 90, 95, 99)}
            )


RATES = ((4, 2), (10, 1))


def test_a_clock_that_stood_still_once_gives_no_ratio_of_cpu_time():
    taken = by_hand()
    taken.cpu_ns[3] = 0
    assert summarize(taken, baseline="none", threads=1)["int8"].batches[0].cpu_ratio is None


def test_a_share_of_the_samples_has_the_loading_times_and_matches_of_its_engines():
    one = select_samples(by_hand(), ["int8"])
    assert one.load_ms.tolist() == [[9.0], [5.0], [70.0]]
    assert one.outputs_match.tolist() == [[True], [False], [True]]


def test_processes_that_timed_engines_in_another_order_are_not_joined():
    with pytest.raises(EngineError, match="same order"):
        merge_samples([samples(0), select_samples(samples(1), ["int8", "none"])])
