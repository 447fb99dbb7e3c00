"""A scripted backend crashes, hangs, eats memory, gives NaN, lies and is slow: each is a result of its cell."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("fake")

GATES = {"quality": {"margin": 0.05}, "finite": {}}
MEMORY = 700 << 20


def run(place, make, qpipe_in, *args, **changes):
    make.pipeline(place, **{"gates": GATES, **changes})
    return qpipe_in(place, "run", "small.yaml", "--json", *args)


def test_several_bad_engines_and_one_good_in_one_run(place, make, qpipe_in):
    """Every status with its reason and hint; the good cell is whole and promoted; the worst code wins."""
    targets = [
        make.target(place, "good"),
        make.target(place, "crashes", run="crash"),
        make.target(place, "hangs", build="hang", limits={"timeout_s": 1}),
        make.target(place, "eats", run="eat", limits={"memory_bytes": MEMORY}),
        make.target(place, "refuses", build="refuse"),
        make.target(place, "raises", run="raise"),
        make.target(place, "nan", nan=0.2),
        make.target(place, "simulated", kind="simulated", lies="all"),
        make.target(place, "away", build_unavailable="no compiler here"),
        make.target(place, "elsewhere", run_unavailable="no such board here"),
    ]
    said = run(place, make, qpipe_in, "--no-profile", targets=targets)
    assert said.code == 5
    found = {target: said.cell(f"int8/{target}") for target in targets}
    assert {target: (cell["status"], cell["verdict"]) for target, cell in found.items()} == {
        "good": ("ok", "PASS"),
        "crashes": ("crashed", None),
        "hangs": ("timeout", None),
        "eats": ("memory", None),
        "refuses": ("failed", None),
        "raises": ("failed", None),
        "nan": ("ok", "FAIL"),
        "simulated": ("ok", "INCONCLUSIVE"),
        "away": ("unavailable", None),
        "elsewhere": ("unavailable", "INCONCLUSIVE"),
    }
    words = {
        "crashes": ("SIGSEGV", "end of its log"),
        "hangs": ("limit of 1 s", "timeout_s"),
        "eats": ("limit of 700 MiB", "memory_bytes"),
        "refuses": ("refuses to build", "options say so"),
        "raises": ("ZeroDivisionError", ""),
        "away": ("no compiler here", "options say so"),
        "elsewhere": ("no such board here", "options say so"),
    }
    for target, (reason, hint) in words.items():
        assert reason in found[target]["reason"], target
        assert hint in found[target]["hint"], target
        assert "\n" not in found[target]["reason"]
    assert found["elsewhere"]["engine"]["files"] == ["model.onnx"]
    assert found["elsewhere"]["gates"]["quality"]["verdict"] == "INCONCLUSIVE"
    assert found["nan"]["gates"]["finite"]["verdict"] == "FAIL"
    assert [one["model"] for one in said.json["promoted"]] == ["small-good"]
    assert not list((place / ".qpipe" / "tmp").iterdir())

    shown = qpipe_in(place, "gate", "last")
    assert shown.code == 5
    assert "SIGSEGV" in shown.out
    from qpipe.flow.finished.runs import recall_run
    from qpipe.store import Store

    tails = {cell.target: cell.log_tail for cell in recall_run(Store(place / ".qpipe"), "last").result.cells}
    assert "Segmentation fault" in tails["crashes"]
    assert "ZeroDivisionError" in tails["raises"]

    before = {target: cell["cached"] for target, cell in found.items()}
    assert not any(before.values())
    again = qpipe_in(place, "run", "small.yaml", "--json", "--no-profile", "--target", "good", "--target", "away")
    assert again.cell("int8/good")["cached"]
    assert not again.cell("int8/away")["cached"]


def test_the_worst_code_of_several_cells_wins(place, make, qpipe_in):
    """5 before 3 before 4, whatever the order of cells; 0 only where all pass."""
    names = {
        0: make.target(place, "good"),
        3: make.target(place, "worse", flip=0.3),
        4: make.target(place, "undecided", flip=0.05),
        5: make.target(place, "broken", run="refuse"),
    }
    make.pipeline(place, targets=list(names.values()), gates={"quality": {"margin": 0.05}})
    assert qpipe_in(place, "run", "small.yaml", "--no-profile", "--offline").code == 5
    for codes, expected in (((0, 4, 3), 3), ((4, 0), 4), ((3, 5, 4, 0), 5)):
        picked = [part for code in codes for part in ("--target", names[code])]
        assert qpipe_in(place, "run", "small.yaml", "--no-profile", "--offline", *picked).code == expected, codes


def test_lies_in_the_timed_run_and_slowness(place, make, qpipe_in):
    """The timed path is the gated path: outputs that change under the clock are no evidence for speed.

    On a busy machine the slow engine may be left undecided (drift), but it can never pass.
    """
    targets = [
        make.target(place, "liar", lie_after_runs=34, float_slow_ms=3.0),
        make.target(place, "slow", slow_ms=4.0, float_slow_ms=1.0),
    ]
    gates = {**GATES, "speedup": {"at_least": 1.1}}
    profile = {"processes": 3, "rounds": 40, "blocks": 2, "min_seconds": 0.0, "warmup": 1, "memory_processes": 1}
    said = run(place, make, qpipe_in, "--offline", targets=targets, gates=gates, profile=profile)
    liar, slow = (said.cell(f"int8/{target}") for target in targets)
    assert slow["gates"]["speedup"]["verdict"] in ("FAIL", "INCONCLUSIVE")
    assert slow["profile"]["batch"]["1"]["ratio"]["median"] > 2
    assert liar["profile"]["batch"]["1"]["ratio"]["median"] < 0.5
    assert liar["gates"]["quality"]["verdict"] == "PASS"
    assert liar["gates"]["speedup"]["verdict"] == "INCONCLUSIVE"
    assert "outputs of the timed run differ" in liar["gates"]["speedup"]["reason"]
    assert liar["verdict"] == "INCONCLUSIVE"
    assert liar["gates"]["timed-outputs"]["verdict"] == "INCONCLUSIVE"
    assert "timed-outputs" not in slow["gates"]
    assert any("small/int8/liar" in warning and "timed run" in warning for warning in said.json["warnings"])
    assert said.code == (3 if slow["verdict"] == "FAIL" else 4)


def test_an_impossible_cell_is_found_before_work(place, make, qpipe_in):
    target = make.target(place, "never", build_unavailable="FP8 needs compute capability 8.9", impossible=True)
    (place / "mlflow.db").unlink()
    before = sorted(path.name for path in place.iterdir())
    said = run(place, make, qpipe_in, targets=[target])
    assert (said.code, said.json["error"]["code"]) == (2, 2)
    assert "FP8 needs" in said.json["error"]["message"]
    assert sorted(path.name for path in place.iterdir()) == sorted([*before, "small.yaml"])


def test_a_board_that_comes_back_is_measured(place, make, qpipe_in):
    """What could not be measured is not remembered as measured: the same cell is tried again."""
    target = make.target(place, "board", run_unavailable="no driver")
    first = run(place, make, qpipe_in, "--no-profile", "--offline", targets=[target])
    again = qpipe_in(place, "run", "small.yaml", "--json", "--no-profile", "--offline")
    assert (first.code, again.code) == (5, 5)
    assert not again.cell("int8/board")["cached"]
    assert again.cell("int8/board")["engine"] == first.cell("int8/board")["engine"]
