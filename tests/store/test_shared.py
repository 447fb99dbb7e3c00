"""Large files that objects have in common lie on the disk once; each object stays whole by itself."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from qpipe.errors import StoreError
from qpipe.store import Store
from qpipe.store.shared import LARGE_BYTES

LARGE = bytes(LARGE_BYTES)


def put(store, name, data=LARGE):
    def fill(folder):
        (folder / "weights").mkdir()
        (folder / "weights" / "w.bin").write_bytes(data)
        (folder / "small").write_text(name)

    return store.made_once("objects", name, fill)


def inode(folder):
    return (folder / "weights" / "w.bin").stat().st_ino


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_a_large_file_lies_on_the_disk_once_and_small_ones_by_themselves(store):
    one, two, other = put(store, "one"), put(store, "two"), put(store, "other", LARGE[1:] + b"x")
    assert one != two
    assert inode(one) == inode(two) != inode(other)
    assert (one / "small").stat().st_nlink == 1
    assert store.size() == 2 * LARGE_BYTES + len("onetwoother")
    for folder in (one, two, other):
        assert Store(store.root).folder(folder.name) == folder
    assert not list((store.root / "tmp").iterdir())


def test_what_no_object_has_any_more_is_gone_after_cleaning(store):
    one, two = put(store, "one"), put(store, "two")
    shutil.rmtree(one)
    store.clean()
    assert len(list((store.root / "files").iterdir())) == 1
    assert two.joinpath("weights", "w.bin").read_bytes() == LARGE
    shutil.rmtree(two)
    store.clean()
    assert not list((store.root / "files").iterdir())


def test_a_changed_file_is_found_in_every_object_and_reaches_no_new_one(store):
    one = put(store, "one")
    file = one / "weights" / "w.bin"
    file.chmod(0o644)
    file.write_bytes(b"x" + LARGE[1:])
    file.chmod(0o444)
    two = put(store, "two")
    assert two.joinpath("weights", "w.bin").read_bytes() == LARGE
    with pytest.raises(StoreError, match="was changed"):
        put(store, "one")
    shutil.rmtree(one)  # as the hint says
    assert inode(put(store, "one")) == inode(two)


def test_another_mode_is_another_file(store):
    def executable(folder):
        (folder / "w.bin").write_bytes(LARGE)
        (folder / "w.bin").chmod(0o755)

    one, two = put(store, "one"), store.made_once("objects", "two", executable)
    assert os.access(two / "w.bin", os.X_OK)
    assert not (one / "weights" / "w.bin").stat().st_mode & 0o111


@pytest.mark.parametrize("number", [errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EXDEV])
def test_a_disk_without_hard_links_holds_copies(store, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    put(store, "zero")
    monkeypatch.setattr(os, "link", refuse)
    one, two = put(store, "one"), put(store, "two")
    assert inode(one) != inode(two)
    assert Store(store.root).folder(two.name) == two
    assert not list((store.root / "tmp").iterdir())
