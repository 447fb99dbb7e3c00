"""No room: a file system of one MiB, really full, under an emulator's work folder and under a phone's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys
from pathlib import Path
from qpipe.errors import EngineError
from qpipe.hosts.adb import AdbDevice
from qpipe.hosts.emulator import EmulatedDevice
from qpipe.hosts.remote import ONNXRUNTIME, Job, RemoteEngine

kind, large, folder = sys.argv[1:]
device = AdbDevice("EMULATED01", python=sys.executable) if kind == "phone" else EmulatedDevice("qemu-aarch64")
try:
    RemoteEngine(device, Job(file=Path(large), runtime=ONNXRUNTIME), timeout_s=10)
except EngineError as error:
    print(error.message)
print(os.listdir(folder))
"""


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("phone", "adb EMULATED01: the device is full ("),
        ("emulator", "qemu-aarch64: model.onnx cannot be copied to "),
    ],
)
def test_full_disk_is_one_line_and_left_clean(phone: Path, tmp_path: Path, kind: str, message: str) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare (package util-linux)")
    large = tmp_path / "model.onnx"
    large.write_bytes(bytes(2**21))
    small = 'mount -t tmpfs -o size=1m tmpfs "$0" && echo mounted && TMPDIR=$0 exec "$@"'
    command = ("unshare", "-rm", "sh", "-c", small, str(phone), sys.executable, "-c", SCRIPT)
    done = subprocess.run(
        (*command, kind, str(large), str(phone)), capture_output=True, text=True, timeout=60, check=False
    )
    if not done.stdout.startswith("mounted"):
        pytest.skip(f"no file system of one's own here: {done.stderr.strip()}")
    _, said, left = done.stdout.splitlines()
    assert said.startswith(message)
    assert "No space left on device" in said
    assert left == "[]"
