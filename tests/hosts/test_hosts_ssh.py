"""ssh, for real: a server on loopback, a runner there, nothing left behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from qpipe.errors import EngineError, TargetError
from qpipe.hosts.device import open_device
from qpipe.hosts.remote import ONNXRUNTIME, RUNNER, Job, RemoteEngine
from qpipe.hosts.ssh import SshDevice
from qpipe.records.engine import Ready, Unavailable
from qpipe.records.target import Host

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


def _folder(device: SshDevice) -> Path:
    """The device's work folder: the "board" is this machine. Others may work in folders of their own meanwhile."""
    return Path(device._folder)


def test_engine_runs_there_and_brings_its_own_times(board: str, doubling: Path) -> None:
    device = SshDevice(board, python=sys.executable)
    assert isinstance(device.check(), Ready)
    engine = RemoteEngine(device, Job(file=doubling, runtime=ONNXRUNTIME), timeout_s=60)
    try:
        for factor in (1, 3):
            answer = engine.run((ROWS * factor,))
            np.testing.assert_array_equal(answer.outputs[0], ROWS * factor * 2)
            assert 0 < answer.wall_ns < 1e9
            assert answer.peak_rss_bytes > 1e6
        assert engine.hello.version.startswith("onnxruntime ")
        assert dict(engine.hello.conditions)["machine"]
        assert _folder(device).is_dir()
    finally:
        engine.close()
    assert not _folder(device).exists()


@pytest.mark.slow
def test_runner_removes_its_folder_when_the_connection_dies(board: str, doubling: Path) -> None:
    import time

    device = SshDevice(board, python=sys.executable)
    engine = RemoteEngine(device, Job(file=doubling, runtime=ONNXRUNTIME), timeout_s=60)
    assert engine._process is not None
    engine._process.kill()  # as if this machine had lost its power: nobody calls `close`
    for _ in range(100):
        if not _folder(device).exists():
            break
        time.sleep(0.1)
    assert not _folder(device).exists()
    with pytest.raises(EngineError):
        engine.run((ROWS,))
    engine.close()


@pytest.mark.parametrize(
    ("address", "message"), [("stranger", "the key was refused"), ("nobody-home", "nothing listens there")]
)
def test_refusals_are_one_clear_line(board: str, doubling: Path, address: str, message: str) -> None:
    device = SshDevice(address)
    state = device.check()
    assert isinstance(state, Unavailable)
    assert message in state.reason
    assert "\n" not in state.reason
    with pytest.raises(EngineError, match=message):
        RemoteEngine(device, Job(file=doubling, runtime=ONNXRUNTIME), timeout_s=10)


def test_full_disk_is_said_and_left_clean(full_disk: tuple[str, Callable[[], list[str]]], tmp_path: Path) -> None:
    host, left = full_disk
    device = SshDevice(host, python=sys.executable)
    large = tmp_path / "model.onnx"
    large.write_bytes(bytes(2**21))
    with pytest.raises(EngineError, match="ssh full: the device is full, or the folder is not writable") as caught:
        RemoteEngine(device, Job(file=large, runtime=ONNXRUNTIME), timeout_s=10)
    assert "\n" not in caught.value.message
    assert left() == []
    device.push(RUNNER, "runner.py")  # it was the disk: a small file fits
    assert left() == [_folder(device).name]
    device.remove()
    assert left() == []


def test_device_that_goes_away_in_mid_run_is_one_clear_line(board: str, doubling: Path) -> None:
    device = SshDevice(board, python=sys.executable)
    engine = RemoteEngine(device, Job(file=doubling, runtime=ONNXRUNTIME), timeout_s=30)
    try:
        for runner in _runners(_folder(device)):
            os.kill(runner, signal.SIGKILL)  # nobody says goodbye
        with pytest.raises(EngineError, match="ssh board: ") as caught:
            engine.run((ROWS,))
        assert "\n" not in caught.value.message
    finally:
        engine.close()
    assert not _folder(device).exists()


def _runners(folder: Path) -> list[int]:
    """Processes on the "board" that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink() == folder:
                found.append(int(process.name))
    assert found
    return found


def test_runtime_that_is_missing_there_is_named(board: str, doubling: Path, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')  # no site-packages
    bare.chmod(0o755)
    device = SshDevice(board, python=str(bare))
    with pytest.raises(EngineError, match="the runtime is not installed there"):
        RemoteEngine(device, Job(file=doubling, runtime=ONNXRUNTIME), timeout_s=20)
    assert not _folder(device).exists()


def test_wrong_input_ends_the_runner_with_its_reason(board: str, doubling: Path) -> None:
    device = SshDevice(board, python=sys.executable)
    engine = RemoteEngine(device, Job(file=doubling, runtime=ONNXRUNTIME), timeout_s=60)
    with pytest.raises(EngineError, match=r"ssh board: InvalidArgument: .*Got: 4 Expected: 3"):
        engine.run((np.zeros((2, 4), np.float32),))
    engine.close()
    assert not _folder(device).exists()


def test_fingerprint_names_the_machine(board: str) -> None:
    import platform

    assert SshDevice(board).fingerprint().startswith(platform.machine())


@pytest.mark.parametrize("host", [Host(), Host(kind="ssh"), Host(kind="emulator", address="bochs")])
def test_hosts_that_cannot_be(host: Host) -> None:
    with pytest.raises(TargetError):
        open_device(host)
