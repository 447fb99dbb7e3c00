"""Engines of this backend on other machines: a loopback ssh server, a stand-in phone, an emulated arm64."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from qpipe_onnxruntime.backend import OnnxRuntimeBackend
from qpipe_onnxruntime.remote import KNOWN

from qpipe.errors import EngineError
from qpipe.hosts.emulator import EmulatedDevice
from qpipe.hosts.known_answer import ask_network, read_known_answer
from qpipe.hosts.qemu_root import root_state
from qpipe.plugins.backend import DeviceTimed, OnDevice, Remarking
from qpipe.records.engine import Engine, Ready, Unavailable
from qpipe.records.target import Host, Target

BOARD = Target(
    name="board", backend="onnxruntime", host=Host(kind="ssh", address="board"), options={"python": sys.executable}
)
ROWS = np.random.default_rng(3).normal(size=(5, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def engine(kit) -> Engine:
    graph = kit.network()
    return kit.engine(kit.prepared(graph, kit.static(graph, activation="QInt8")), replace(BOARD, host=Host()))


def _here(engine: Engine) -> np.ndarray:
    return OnnxRuntimeBackend().open(engine, Target(name="here", backend="onnxruntime")).run({"x": ROWS})["y"]


def test_an_engine_runs_on_a_board_through_ssh_as_it_runs_here(board, engine):
    found = OnnxRuntimeBackend().check(BOARD)
    assert isinstance(found.run, Ready)
    assert found.fingerprint
    session = OnnxRuntimeBackend().open(engine, BOARD)
    try:
        assert session.kind == "measured"
        np.testing.assert_array_equal(session.run({"x": ROWS})["y"], _here(engine))
        assert isinstance(session, DeviceTimed)
        assert 0 < session.device_ns[0] < 5e9
        assert isinstance(session, OnDevice)
        before, peak = session.device_memory_bytes
        assert 1e6 < before < peak
        assert dict(session.device_conditions())["runtime"] == f"onnxruntime {onnxruntime.__version__}"
        with pytest.raises(EngineError, match="inputs are missing; the engine has x"):
            session.run({})
    finally:
        session.close()


def test_an_engine_runs_on_a_phone(phone, engine):
    target = replace(BOARD, host=Host(kind="adb", address="any"))
    session = OnnxRuntimeBackend().open(engine, target)
    np.testing.assert_array_equal(session.run({"x": ROWS})["y"], _here(engine))
    session.close()
    assert list(phone.iterdir()) == []


def test_a_phone_that_is_not_there_is_said_before_work(phone):
    (phone / "mode").write_text("none")
    found = OnnxRuntimeBackend().check(replace(BOARD, host=Host(kind="adb", address="any")))
    assert isinstance(found.build, Ready)
    assert isinstance(found.run, Unavailable)
    assert "no device is connected" in found.run.reason
    assert found.fingerprint == ""


def test_a_device_of_another_architecture_is_refused_and_left_clean(phone, engine):
    target = replace(BOARD, host=Host(kind="adb", address="any"), arch="riscv64")
    with pytest.raises(EngineError, match="the target is riscv64, the device is "):
        OnnxRuntimeBackend().open(engine, target)
    assert list(phone.iterdir()) == []


def test_the_known_answer_holds_here():
    known = read_known_answer(KNOWN.rows)
    session = onnxruntime.InferenceSession(str(KNOWN.job.file), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: known.inputs})[0]
    assert np.abs(found - known.outputs).max() <= known.step / 100
    assert np.ptp(known.outputs) > 200 * known.step


@pytest.mark.device
def test_emulated_arm64_gives_the_known_answer_and_agrees_with_x86(engine):
    state = root_state()
    if isinstance(state, Unavailable):
        pytest.skip(f"{state.reason}: {state.hint}")
    ask_network(EmulatedDevice("qemu-arm64"), KNOWN, timeout_s=120)
    target = Target(
        name="arm64", backend="onnxruntime", arch="aarch64", host=Host(kind="emulator", address="qemu-aarch64")
    )
    session = OnnxRuntimeBackend().open(engine, target)
    try:
        assert session.kind == "emulated"
        np.testing.assert_array_equal(session.run({"x": ROWS})["y"], _here(engine))
        assert isinstance(session, Remarking)
        agreement, known = session.remarks
        assert agreement == "agreement with x86_64: all 5 rows are bitwise equal"
        assert known.startswith("known-answer test passed: off by ")
    finally:
        session.close()
