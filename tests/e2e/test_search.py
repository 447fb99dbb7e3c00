"""A search: candidates meet the search rows, one finalist the gate rows, and float stays where nothing is better."""

from pathlib import Path

import pytest

COARSE = {"name": "coarse", "stages": ["fold", "calibrate", {"quantize": {"ranges": "percentile", "percentile": 60}}]}


def search(*candidates, objective="size"):
    """Recipes that are a search among candidates."""
    return {"search": {"objective": objective, "budget": {"trials": 6}, "candidates": list(candidates)}}


def trials(said):
    return {trial["recipe"]: trial for trial in said.json["search"]}


def test_the_finalist_alone_meets_the_gate_rows(place, qpipe_in, make):
    make.pipeline(place, recipes=search("int8", "fp16"), gates={"finite": {}})
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    found = trials(said)
    (winner,) = (name for name, trial in found.items() if trial["chosen"])
    (loser,) = found.keys() - {winner}
    assert [cell["recipe"] for cell in said.json["cells"] if cell["verdict"] is not None] == [winner]
    assert found[winner]["size_bytes"] < found[loser]["size_bytes"]
    assert found[loser]["reason"] == f"{winner} is smaller"
    assert all(trial["reference"] == pytest.approx(1.0) for trial in found.values())
    assert said.code == 0
    again = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    assert again.json["run_id"] == said.json["run_id"]
    assert all(cell["cached"] for cell in again.json["cells"])


def test_what_loses_too_much_gets_its_worst_nodes_back_in_float(place, qpipe_in, make):
    gates = {"quality": {"metric": "accuracy", "margin": 0.02}}
    make.pipeline(place, recipes=search(COARSE), gates=gates)
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    found = trials(said)
    assert not found["coarse"]["chosen"]
    assert "on the search rows, 0.02 allowed" in found["coarse"]["reason"]
    assert "coarse-equalized" in found
    assert "coarse-keep1" in found
    assert found["coarse-keep1"]["size_bytes"] != found["coarse"]["size_bytes"]


def test_no_candidate_is_inconclusive_and_says_why(place, qpipe_in, make):
    gates = {"quality": {"metric": "accuracy", "margin": 0.02}, "size": {"at_most_ratio": 0.01}}
    make.pipeline(place, recipes=search("int8"), gates=gates)
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    assert said.code == 4
    assert "would fail size" in trials(said)["int8"]["reason"]
    assert any("the float engine stays the best" in warning for warning in said.json["warnings"])
    assert said.json["promoted"] == []


def test_a_speed_search_without_a_profile_chooses_nobody(place, qpipe_in, make):
    make.pipeline(place, recipes=search("int8", objective="latency"))
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    assert trials(said)["int8"]["reason"] == "its latency was not measured: profiling is switched off"
    assert said.code == 4


def test_explain_says_where_the_loss_is_and_compare_what_changed(place, qpipe_in, make):
    make.pipeline(place)
    first = qpipe_in(place, "run", "small.yaml", "--no-profile", "--offline", "--json").json["run_id"]
    (found,) = qpipe_in(place, "explain", "small/int8/cpu-local", "--json").json["cells"]
    assert [step["name"] for step in found["steps"]] == ["float", "prepared", "quantized", "engine"]
    assert found["role"] == "search"
    assert found["steps"][0]["metric"] == pytest.approx(1.0)
    assert 10 < found["steps"][-1]["sqnr_db"] < 100
    assert found["layers"]
    assert all(0 <= layer["clipped"] <= 1 for layer in found["layers"])
    assert any(layer["kernel"].endswith("QLinearConv") for layer in found["layers"])
    assert {remark["kind"] for remark in found["remarks"]} == {"rows"}
    (page,) = (Path(one) for one in qpipe_in(place, "report", "--json").json["files"] if one.endswith(".html"))
    assert "quantized tensors, the worst first" in page.read_text()
    make.pipeline(place, recipes=["fp16"], gates={"finite": {}})
    second = qpipe_in(place, "run", "small.yaml", "--no-profile", "--offline", "--json").json["run_id"]
    pairs = {pair["cell"]: pair for pair in qpipe_in(place, "compare", first, second, "--json").json["cells"]}
    assert any(pair["before"] is None and "/fp16/" in cell for cell, pair in pairs.items())
    assert any(pair["after"] is None and "/int8/" in cell for cell, pair in pairs.items())


def test_setup_names_what_needs_none(place, qpipe_in, make):
    said = qpipe_in(place, "setup", "cpu-local")
    assert said.code == 2
    assert "cpu-local needs no setup: backend onnxruntime has none" in said.err
    assert "did you mean 'cpu-local'?" in qpipe_in(place, "setup", "cpu-locl").err


@pytest.mark.usefixtures("fake")
def test_timings_of_an_emulator_are_withheld(place, qpipe_in, make):
    target = make.target(place, "board", kind="emulated")
    gates = {"finite": {"accept": ["emulated"]}, "speedup": {"at_least": 1.0, "accept": ["emulated"]}}
    make.pipeline(place, targets=[target], recipes=["fp16"], gates=gates)
    said = qpipe_in(place, "run", "small.yaml", "--offline", "--json")
    cell = said.cell("fp16/board")
    assert cell["profile"] is None
    assert cell["gates"]["finite"]["verdict"] == "PASS"
    assert cell["gates"]["speedup"]["verdict"] == "INCONCLUSIVE"
    assert "timings of emulated runs mean nothing" in cell["gates"]["speedup"]["reason"]
    assert not [found for found in cell["lint"] if found["kind"] == "device"]  # what is gated runs on all rows
    assert said.cell("none/board")["lint"][0]["message"].startswith("ran 128 of 400 rows: this is the float")
    assert said.code == 4
