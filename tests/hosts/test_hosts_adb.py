"""adb: against a stand-in of the program, and `adb devices` of the real one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from qpipe.errors import EngineError
from qpipe.hosts import remote
from qpipe.hosts.adb import AdbDevice, devices
from qpipe.hosts.remote import ONNXRUNTIME, Job, RemoteEngine
from qpipe.records.engine import Ready, Unavailable

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


def _job(doubling: Path) -> Job:
    return Job(file=doubling, runtime=ONNXRUNTIME)


@pytest.mark.parametrize("serial", ["EMULATED01", "any"])
def test_engine_runs_on_the_stand_in_and_leaves_nothing(phone: Path, doubling: Path, serial: str) -> None:
    device = AdbDevice(serial, python=sys.executable)
    assert isinstance(device.check(), Ready)
    assert device.fingerprint() == "Stand-in phone"
    engine = RemoteEngine(device, _job(doubling), timeout_s=60)
    assert len(list(phone.iterdir())) == 1
    np.testing.assert_array_equal(engine.run((ROWS,)).outputs[0], ROWS * 2)
    engine.close()
    assert list(phone.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "serial", "message"),
    [
        ("none", "any", "no device is connected"),
        ("none", "EMULATED01", "EMULATED01 is not connected"),
        ("unauthorized", "any", "EMULATED01 is unauthorized"),
        ("two", "any", "2 devices are connected"),
    ],
)
def test_phones_that_are_not_ready(phone: Path, mode: str, serial: str, message: str) -> None:
    (phone / "mode").write_text(mode)
    state = AdbDevice(serial).check()
    assert isinstance(state, Unavailable)
    assert message in state.reason


def test_full_device_is_said_and_cleaned(phone: Path, doubling: Path) -> None:
    (phone / "mode").write_text("full")
    with pytest.raises(EngineError, match="the device is full"):
        RemoteEngine(AdbDevice("EMULATED01"), _job(doubling), timeout_s=10)
    assert [path.name for path in phone.iterdir()] == ["mode"]


def test_unplugged_in_mid_run(phone: Path, doubling: Path) -> None:
    (phone / "mode").write_text("unplugged")
    engine = RemoteEngine(AdbDevice("EMULATED01", python=sys.executable), _job(doubling), timeout_s=30)
    with pytest.raises(EngineError, match="the device went away"):
        engine.run((ROWS,))
    engine.close()


def test_device_that_hangs_is_given_up(phone: Path, doubling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (phone / "mode").write_text("hang")
    monkeypatch.setattr(remote, "_START_S", 1.0)
    with pytest.raises(EngineError, match="no answer within 1 s"):
        RemoteEngine(AdbDevice("EMULATED01", python=sys.executable), _job(doubling), timeout_s=1)
    assert [path.name for path in phone.iterdir()] == ["mode"]


def test_adb_that_is_missing_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    state = AdbDevice("any").check()
    assert isinstance(state, Unavailable)
    assert "install adb" in state.hint


def test_what_the_real_adb_prints_is_understood() -> None:
    if shutil.which("adb") is None:
        pytest.skip("no adb")
    port = "5097"  # a server of our own, ended below
    try:
        done = subprocess.run(["adb", "-P", port, "devices"], capture_output=True, text=True, timeout=30, check=True)
    finally:
        subprocess.run(["adb", "-P", port, "kill-server"], capture_output=True, timeout=30, check=False)
    assert done.stdout.splitlines()[-2].startswith("List of devices") or devices(done.stdout)
    assert all(len(state) > 2 for _, state in devices(done.stdout))
