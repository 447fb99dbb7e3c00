"""One pipeline, several places: onnxruntime and LiteRT on this machine, and onnxruntime on a board through ssh."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from device_fixtures import sshd
from qpipe_litert.tools import tool_state

from qpipe.records.engine import Unavailable

__all__ = ["sshd"]

GATES = {"quality": {"metric": "accuracy", "margin": 0.1}, "finite": {}}


@pytest.fixture(autouse=True)
def one_seed() -> None:
    """None here: children know the ssh configuration of their own test."""


def _both(said, *names: str) -> list[dict]:
    """INT8 cells that passed, timed beside their own float engine and judged by the same float model."""
    assert said.code == 0, said.err
    found = [said.cell(f"int8/{name}") for name in names]
    for cell in found:
        assert cell["verdict"] == "PASS"
        assert cell["profile"]["kind"] == "measured"
        assert cell["profile"]["batch"]["1"]["ratio"]["median"] > 0
    assert len({cell["metrics"]["reference"]["accuracy"] for cell in found}) == 1
    return found


@pytest.mark.slow
def test_litert_stands_beside_onnxruntime(place: Path, qpipe_in, make) -> None:
    state = tool_state()
    if isinstance(state, Unavailable):
        pytest.skip(f"{state.reason}: {state.hint}")
    make.pipeline(place, targets=["cpu-local", "x86-litert"], gates=GATES, promote=None)
    onnx, litert = _both(qpipe_in(place, "run", "small.yaml", "--offline", "--json"), "cpu-local", "x86-litert")
    assert onnx["engine"]["files"] == ["model.onnx"]
    assert litert["engine"]["files"] == ["model.tflite", "layout.json"]


@pytest.mark.slow
def test_a_board_gives_the_numbers_of_this_machine(
    place: Path, qpipe_in, make, sshd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QPIPE_SSH_CONFIG", str(sshd / "config"))
    board = {"name": "board", "base": "cpu-local", "host": {"ssh": "board"}, "options": {"python": sys.executable}}
    make.pipeline(place, targets=["cpu-local", board], gates=GATES, promote=None)
    here, there = _both(qpipe_in(place, "run", "small.yaml", "--offline", "--json"), "cpu-local", "board")
    assert there["metrics"]["engine"] == here["metrics"]["engine"]
    assert there["profile"]["peak_rss_bytes"] > 2**20
