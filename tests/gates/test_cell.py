"""All gates of a cell, what has to be measured, and the file of outcomes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest

from qpipe.errors import ConfigError, StoreError
from qpipe.gates import check_gates, decide_cell, gate_needs, load_outcomes, needs_profile, save_outcomes
from qpipe.measure.samples import Samples, save_samples
from qpipe.plugins.gate import GateType
from qpipe.plugins.metric import Units
from qpipe.records.codec import encode
from qpipe.records.evidence import NotMeasured
from qpipe.records.verdict import Decision, GateSpec, Verdict, overall

SPECS = (
    GateSpec(name="quality", type="quality", params={"margin": 0.01}),
    GateSpec(name="small", type="size", params={"at_most_ratio": 0.35}, required=False),
    GateSpec(name="quick", type="speedup", params={"at_least": 1.2}, targets=("gpu",)),
)


def decide(made, of, specs=SPECS, recipe="int8", target="cpu"):
    return decide_cell(of, specs, made.gates, alpha=made.alpha, recipe=recipe, target=target)


def test_gates_that_apply_are_judged_in_order_under_their_names(made):
    found = decide(made, made.flips(40, 50, 4846))
    assert [(one.gate, one.required, one.decision) for one in found] == [
        ("quality", True, Decision.PASS),
        ("small", False, Decision.PASS),
    ]
    assert overall(found) is Decision.PASS
    assert encode(found[0])


def test_the_reference_is_never_gated(made):
    assert decide(made, made.flips(0, 0, 1000), recipe="none") == ()


def test_nothing_measured_never_passes(made):
    missing = NotMeasured(reason="crashed")
    nothing = made.evidence(evaluation=missing, reference=missing, engine_size_bytes=0)
    specs = [
        GateSpec(name=name, type=name, params=params)
        for name, params in {
            "quality": {"margin": 0.5},
            "slices": {"margin": 0.5, "by": "label"},
            "floor": {"at_least": 0.0},
            "agreement": {"at_least": 0.01},
            "finite": {},
            "speedup": {"at_least": 0.01},
            "latency": {"at_most_ms": 1e9},
            "memory": {"at_most_mib": 1e9},
            "size": {"at_most_mib": 1e9},
            "placement": {},
            "arena": {"at_most_kib": 1e9},
            "flash": {"at_most_kib": 1e9},
            "sram": {"at_most_kib": 1e9},
            "npu_share": {"at_least": 0.01},
            "facts": {"name": "cycles", "at_most": 1e9},
        }.items()
    ]
    assert {spec.type for spec in specs} == set(made.gates)
    found = decide(made, made.flips(0, 0, 10_000, evidence=nothing), specs)
    assert {one.decision for one in found} == {Decision.INCONCLUSIVE}
    assert all("not measured" in one.reason for one in found)


@dataclass(frozen=True)
class Anything:
    """No keys."""


def test_a_plugin_gate_is_kept_from_evidence_that_it_must_not_see(made):
    careless = GateType(
        name="careless",
        summary="passes whatever it sees",
        params=Anything,
        decide=lambda *seen: Verdict(gate="x", decision=Decision.PASS, reason=f"fine, given {len(seen)} things"),
        needs=("evaluation",),
    )
    nothing = made.evidence(evaluation=NotMeasured(reason="crashed"))
    of = made.flips(0, 0, 100, evidence=nothing)
    spec = GateSpec(name="mine", type="careless")
    (found,) = decide_cell(of, [spec], {"careless": careless}, alpha=made.alpha, recipe="int8", target="cpu")
    assert (found.gate, found.decision) == ("mine", Decision.INCONCLUSIVE)


def test_an_unknown_gate_names_the_nearest(made):
    with pytest.raises(ConfigError, match="unknown gate 'qualty'; did you mean 'quality'"):
        check_gates([GateSpec(name="q", type="qualty")], made.gates, made.metrics["accuracy"])


def test_gates_are_checked_before_work(made):
    spec = GateSpec(name="q", type="quality", params={"margin": 2})
    with pytest.raises(ConfigError, match="gate 'q': margin is 2"):
        check_gates([spec], made.gates, made.metrics["accuracy"])
    check_gates(SPECS, made.gates, made.metrics["accuracy"])


def test_what_has_to_be_measured(made):
    assert gate_needs(SPECS, made.gates, recipe="int8", target="cpu") == {"evaluation"}
    assert needs_profile(SPECS, made.gates, recipe="int8", target="gpu")
    assert not needs_profile(SPECS, made.gates, recipe="int8", target="cpu")
    assert not needs_profile(SPECS, made.gates, recipe="none", target="gpu")


def stored(folder, rows=6, labelled=True):
    first = np.arange(0, rows, 2)
    save_outcomes(
        folder,
        engine=Units(values=np.ones((3, 2)), rows=first),
        reference=Units(values=np.zeros((3, 2)), rows=first),
        agreement=np.linspace(0, 1, rows),
        groups=np.array(["b", "b", "a", "a", "b", "b"]),
        slices={"label": np.array([3, 3, 4, 4, 3, 3])},
        labelled=labelled,
    )


@pytest.mark.parametrize("labelled", [True, False])
def test_outcomes_come_back(made, tmp_path, labelled):
    stored(tmp_path, labelled=labelled)
    found = load_outcomes(tmp_path, made.evidence(), made.metrics["spearman"], ("measured",), gate_set="g")
    assert found.engine.tolist() == np.ones((3, 2)).tolist()
    assert found.reference.sum() == 0
    assert found.groups.tolist() == [1, 0, 1]
    assert found.slices["label"].tolist() == ["3", "4", "3"]
    assert found.agreement.tolist() == pytest.approx([0, 0.4, 0.8])
    assert found.labelled is labelled


def test_the_same_outcomes_are_the_same_bytes(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    stored(tmp_path / "a")
    stored(tmp_path / "b")
    assert (tmp_path / "a/evaluation.npz").read_bytes() == (tmp_path / "b/evaluation.npz").read_bytes()


def test_the_seed_follows_gate_set_and_metric_alone(made, tmp_path):
    stored(tmp_path)

    def seed(metric, gate_set):
        return load_outcomes(tmp_path, made.evidence(), made.metrics[metric], gate_set=gate_set).seed

    assert seed("spearman", "g") == seed("spearman", "g")
    assert len({seed("spearman", "g"), seed("spearman", "h"), seed("auc", "g")}) == 3
    assert 2**31 < max(seed("auc", str(number)) for number in range(16)) < 2**32


def test_a_folder_without_evaluation_is_empty(made, tmp_path):
    found = load_outcomes(tmp_path, made.evidence(), made.metrics["accuracy"])
    assert (len(found.engine), found.labelled) == (0, False)


def test_latencies_are_those_of_the_cells_own_engine(made, tmp_path):
    runs = np.arange(8)
    samples = Samples(
        engines=np.array(["m/none/cpu", "m/int8/cpu"]),
        process=runs // 4,
        block=np.zeros(8, dtype=np.int64),
        batch=np.full(8, 2),
        engine=runs % 2,
        wall_ns=(runs + 1) * 1_000_000,
        cpu_ns=runs,
        load_ms=np.ones((2, 2)),
        outputs_match=np.ones((2, 2), dtype=bool),
    )
    save_samples(tmp_path / "profile.npz", samples)
    found = load_outcomes(tmp_path, made.evidence(), made.metrics["accuracy"]).latency_ms
    assert {size: [one.tolist() for one in times] for size, times in found.items()} == {2: [[2.0, 4.0], [6.0, 8.0]]}


@pytest.mark.parametrize("content", [b"", b"not a zip"])
def test_a_broken_file_is_named(made, tmp_path, content):
    (tmp_path / "evaluation.npz").write_bytes(content)
    with pytest.raises(StoreError, match=r"evaluation\.npz cannot be read"):
        load_outcomes(tmp_path, made.evidence(), made.metrics["accuracy"])


def test_pickled_arrays_are_refused(made, tmp_path):
    np.savez(tmp_path / "evaluation.npz", units=np.array([{}], dtype=object))
    with pytest.raises(StoreError, match="cannot be read"):
        load_outcomes(tmp_path, made.evidence(), made.metrics["accuracy"])


def test_units_that_do_not_pair_up_are_refused(tmp_path):
    units = Units(values=np.ones((3, 1)), rows=np.arange(3))
    other = Units(values=np.ones((3, 1)), rows=np.arange(1, 4))
    with pytest.raises(StoreError, match="do not pair up"):
        save_outcomes(
            tmp_path, engine=units, reference=other, agreement=np.ones(3), groups=None, slices={}, labelled=True
        )


def test_a_user_score_of_zeros_and_ones_is_binary(made, tmp_path):
    units = Units(values=np.array([[0.0], [1.0]]), rows=np.arange(2))
    save_outcomes(tmp_path, engine=units, reference=units, agreement=np.ones(2), groups=None, slices={}, labelled=True)
    user = replace(made.metrics["mae"], name="mine:score")
    assert load_outcomes(tmp_path, made.evidence(), user).metric.kind == "binary"
    assert load_outcomes(tmp_path, made.evidence(), made.metrics["mae"]).metric.kind == "score"


def test_gates_and_metrics_import_nothing_heavy():
    code = (
        "import sys, qpipe.gates, qpipe.metrics; qpipe.gates.builtin_gates(); qpipe.metrics.builtin_metrics();"
        "print([name for name in ('scipy', 'pydantic', 'mlflow', 'onnxruntime', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
