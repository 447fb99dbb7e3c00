"""A GPU target where no GPU is: built by the real builder, judged on its graph, and never promoted by itself."""

from __future__ import annotations

import importlib.util

import pytest
import yaml

pytestmark = pytest.mark.skipif(
    not (importlib.util.find_spec("qpipe_tensorrt") and importlib.util.find_spec("tensorrt_rtx")),
    reason="qpipe-tensorrt[rtx] is not installed",
)


LABEL = "small/int8/ada"


def gpu_target(place, name: str, **options: object) -> str:
    (place / "targets").mkdir(exist_ok=True)
    given = {"product": "tensorrt-rtx", "compute_capability": "8.9", **options}
    document = {"name": name, "backend": "tensorrt", "options": given}
    (place / "targets" / f"{name}.yaml").write_text(yaml.safe_dump(document))
    return name


def test_simulated_evidence_is_judged_where_asked_and_promoted_by_force_alone(place, make, qpipe_in):
    """Beside it a target whose builder refuses, one without its package, and one that is measured and promoted."""
    gpus = [gpu_target(place, "ada", simulate=True), gpu_target(place, "tight", workspace_bytes=4096)]
    accepted = {"accept": ["measured", "simulated"]}
    gates = {"quality": {"margin": 0.05, **accepted}, "finite": accepted}
    make.pipeline(place, targets=[*gpus, "nvidia-h200", "cpu-local"], gates=gates)
    said = qpipe_in(place, "run", "small.yaml", "--no-profile", "--json")
    assert said.code == 5

    ada, tight = said.cell("int8/ada"), said.cell("int8/tight")
    assert (ada["verdict"], ada["gates"]["quality"]["kind"]) == ("PASS", "simulated")
    assert ada["placement"] == {"integer": 3, "float": 0, "elsewhere": 0, "notes": ada["placement"]["notes"]}
    assert (tight["status"], tight["hint"]) == ("failed", "raise `workspace_bytes` (now 4096)")
    assert "no tactics to implement the operation within workspace limit" in tight["reason"]

    if not importlib.util.find_spec("tensorrt"):
        absent = said.cell("int8/nvidia-h200")
        assert (absent["status"], absent["reason"]) == ("unavailable", "the package tensorrt is not installed")
        assert "qpipe-tensorrt[enterprise]" in absent["hint"]

    assert [one["model"] for one in said.json["promoted"]] == ["small-cpu-local"]
    [warning] = said.json["warnings"]
    assert f"{LABEL} has no right to an alias: its evidence is simulated" in warning
    refused = qpipe_in(place, "promote", "last", "--cell", LABEL)
    assert refused.code == 5
    assert "its evidence is simulated" in refused.err

    (place / "measured.yaml").write_text("gates: {quality: {margin: 0.05}}\n")
    strict = qpipe_in(place, "gate", "last", "--gates", "measured.yaml", "--json").cell("int8/ada")
    assert strict["verdict"] == "INCONCLUSIVE"
    assert "simulated" in strict["gates"]["quality"]["reason"]

    forced = qpipe_in(place, "promote", "last", "--cell", LABEL, "--force", "--reason", "no GPU until May", "--json")
    assert forced.code == 0, forced.err
    (move,) = qpipe_in(place, "history", "small-ada", "--json").json["moves"]
    assert (move["forced"], move["reason"]) == (True, "no GPU until May")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"compute_capability": "9.0"}, "tensorrt-rtx does not serve compute capability 9.0"),
        ({"compute_capability": "8.6", "precisions": ["int8", "fp8"]}, "compute capability 8.6 has no FP8"),
    ],
)
def test_what_no_gpu_can_do_ends_the_run_before_work(place, make, qpipe_in, options, words):
    make.pipeline(place, targets=[gpu_target(place, "ada", **options)])
    said = qpipe_in(place, "run", "small.yaml", "--json")
    assert said.code == 2
    assert words in said.json["error"]["message"]
