"""A real sshd on loopback, a stand-in of adb, and a small model: shared with the tests of plugins."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture(scope="session")
def doubling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = 2·x over [N, 3]."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.float32(2), "two")],
    )
    path = tmp_path_factory.mktemp("model") / "doubling.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder with `config` for `ssh -F` and hosts `board`, `full` (inside the namespace of the process that `full.pid`
    names), `stranger` (another key) and `nobody-home` (no port)."""
    server = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    if server is None or shutil.which("ssh") is None:
        pytest.skip("no sshd (package openssh-server)")
    folder = tmp_path_factory.mktemp("sshd")
    folder.chmod(0o700)
    for name in ("host", "key", "full", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    inside = f"exec nsenter -U -m --preserve-credentials -t $(cat {folder}/full.pid) "
    inside += 'sh -c \\"$SSH_ORIGINAL_COMMAND\\"'
    (folder / "authorized").write_text(
        f'{(folder / "key.pub").read_text()}command="{inside}" {(folder / "full.pub").read_text()}'
    )
    port, closed = _free_port(), _free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile {folder}/pid\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nSubsystem sftp {_sftp()}\n"
    )
    (folder / "config").write_text(
        f"Host *\n  HostName 127.0.0.1\n  User {getpass.getuser()}\n  IdentitiesOnly yes\n  LogLevel ERROR\n"
        f"  UserKnownHostsFile {folder}/known\n  StrictHostKeyChecking accept-new\n"
        f"Host board\n  Port {port}\n  IdentityFile {folder}/key\n"
        f"Host full\n  Port {port}\n  IdentityFile {folder}/full\n"
        f"Host stranger\n  Port {port}\n  IdentityFile {folder}/other\n"
        f"Host nobody-home\n  Port {closed}\n  IdentityFile {folder}/key\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # OpenSSH refuses to start as root without it
    process = subprocess.Popen([server, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.PIPE)
    try:
        _wait_for(port, process)
        yield folder
    finally:
        process.terminate()
        process.wait(timeout=10)
        if process.stderr is not None:
            process.stderr.close()


def _sftp() -> str:
    places = ("/usr/lib/openssh", "/usr/libexec/openssh", "/usr/lib/ssh")
    return next((found for place in places if (found := shutil.which("sftp-server", path=place))), "internal-sftp")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if process.poll() is not None:
            said = process.stderr.read().decode() if process.stderr else ""
            pytest.skip(f"sshd does not start here: {said.strip()}")
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.skip("sshd does not answer")


@pytest.fixture
def board(sshd: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("QPIPE_SSH_CONFIG", str(sshd / "config"))
    return "board"


@pytest.fixture
def full_disk(sshd: Path, board: str) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """A host of the server whose `/tmp` is a file system of 1 MiB of its own, and what lies there."""
    hold = ("unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /tmp && echo ready && exec cat")
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("no unshare and nsenter (package util-linux)")
    process = subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        if process.stdout.readline() != "ready\n":
            pytest.skip(f"no file system of one's own here: {process.stderr.read().strip()}")
        (sshd / "full.pid").write_text(str(process.pid))
        enter = ("nsenter", "-U", "-m", "--preserve-credentials", "-t", str(process.pid))

        def left() -> list[str]:
            return subprocess.run(
                (*enter, "ls", "-A", "/tmp"), capture_output=True, text=True, check=True
            ).stdout.split()

        yield "full", left
    finally:
        process.stdin.close()
        process.wait(timeout=10)
        process.stdout.close()
        process.stderr.close()


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is `/data/local/tmp` of a phone that the stand-in of adb plays."""
    programs, storage = tmp_path / "bin", tmp_path / "phone"
    programs.mkdir()
    storage.mkdir()
    (programs / "adb").symlink_to(Path(__file__).with_name("adb_stand_in.sh"))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_ROOT", str(storage))
    return storage
