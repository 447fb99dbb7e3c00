"""`qpipe setup qemu-arm64`: the emulator by either of its names, without any backend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qpipe.cli.settingup import setup
from qpipe.errors import UnavailableError
from qpipe.hosts.emulator import NAMES, EmulatedDevice
from qpipe.hosts.qemu_root import QEMU, qemu_root, root_state
from qpipe.records.engine import Unavailable


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without qemu, apt and a root folder."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("QPIPE_HOME", str(tmp_path / "home"))
    (tmp_path / "bin").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_setup_knows_both_names_and_says_what_is_missing(bare: Path, name: str) -> None:
    with pytest.raises(UnavailableError, match=f"{QEMU} is not installed") as caught:
        setup(name)
    assert caught.value.hint == "install qemu-user-static"
    assert isinstance(EmulatedDevice(name).check(), Unavailable)


def test_a_failed_setup_leaves_nothing_and_says_what_to_run(bare: Path) -> None:
    (bare / "bin" / QEMU).symlink_to("/bin/true")
    with pytest.raises(UnavailableError, match="the arm64 root folder could not be made: apt-get: ") as caught:
        setup("qemu-arm64")
    assert "qpipe setup qemu-arm64" in (caught.value.hint or "")
    assert not qemu_root().base.exists()


def test_a_root_of_another_version_is_named(bare: Path) -> None:
    (bare / "bin" / QEMU).symlink_to("/bin/true")
    root = qemu_root()
    root.base.mkdir(parents=True)
    root.mark.write_text(json.dumps({"contents": "of last year"}))
    state = root_state()
    assert isinstance(state, Unavailable)
    assert "is of another version" in state.reason
    assert state.hint == "qpipe setup qemu-arm64"
