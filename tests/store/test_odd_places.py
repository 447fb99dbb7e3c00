"""Stores in odd places: of several users, behind links, on full disks, written by another qpipe."""

from __future__ import annotations

import errno
import hashlib
import os
from tempfile import TemporaryDirectory

import pytest

from qpipe.errors import ConfigError, StoreError
from qpipe.store import Store
from qpipe.store.failures import full_disk_as_store_error, store_error

OTHER = 1002


def leave(store, name="left"):
    """What a killed process of this user leaves: a working folder and its lock, and a lock by name."""
    for home in ("tmp", "locks"):
        (store.root / home).mkdir(parents=True, exist_ok=True)
        (store.root / home / f"{name}.lock").write_text("")
    folder = store.root / "tmp" / name
    folder.mkdir()
    (folder / "big").write_text("half")
    return folder


def test_what_another_user_left_stays_with_its_lock_until_that_user_comes(tmp_path, monkeypatch):
    store = Store(tmp_path)
    folder = leave(store)
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: OTHER)
        store.clean()
        assert folder.exists()
        assert folder.with_suffix(".lock").exists()
    store.clean()
    assert not list((tmp_path / "tmp").iterdir()) + list((tmp_path / "locks").iterdir())


def test_a_lock_that_another_user_left_can_be_taken(tmp_path, monkeypatch):
    store, real = Store(tmp_path), os.open
    leave(store)

    def refuse(path, flags, *mode):
        if flags & os.O_RDWR and str(path).endswith("left.lock"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)
    with store.lock("left"):
        pass
    with pytest.raises(StoreError, match="Permission denied"), store.lock("left"):  # now it is gone: it must be made
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_run_beside_another_users_run():
    """The whole of it, with the kernel's own rights; pytest's folders are closed to others."""
    with TemporaryDirectory() as place:
        store = Store(place)
        with store.scratch() as theirs, store.lock("named"):
            for folder in (store.root, *store.root.glob("*/")):
                folder.chmod(0o777)
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    os.setgid(OTHER)
                    os.setuid(OTHER)
                    mine = Store(place)
                    mine.clean()
                    mine.remember("space", "key", "mine")
                    code = 0 if theirs.exists() else 2
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
        assert store.recall("space", "key") == "mine"


def test_a_link_to_a_disk_that_is_not_mounted_is_told_as_that(tmp_path):
    (tmp_path / "store").symlink_to(tmp_path / "disk" / "store")
    with pytest.raises(ConfigError, match=r"is a link to .*disk/store, which is not there"):
        Store(tmp_path / "store").check_writable()
    (tmp_path / "disk" / "store").mkdir(parents=True)
    Store(tmp_path / "store").check_writable()


@pytest.mark.parametrize("error", [OSError("2560 requested and 2016 written"), OSError(errno.ENOSPC, "No space left")])
def test_a_disk_that_fills_up_in_the_midst_of_an_array_is_full(tmp_path, error):
    with pytest.raises(StoreError) as found, full_disk_as_store_error("write an object", tmp_path):
        raise error
    assert "free some space" in found.value.hint


def test_what_cannot_be_written_is_named_rather_than_what_it_is_a_copy_of(tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device", "/users/model.onnx", None, "/store/model.onnx")
    assert store_error(error, "write", tmp_path).message.endswith("(/store/model.onnx)")


def test_a_manifest_of_another_form_is_told(tmp_path):
    text = '{"version": 2, "files": []}'
    digest = hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "objects" / digest).mkdir(parents=True)
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / f"{digest}.json").write_text(text)
    with pytest.raises(StoreError, match="not a manifest") as found:
        Store(tmp_path).folder(digest)
    assert "newer qpipe" in found.value.hint
