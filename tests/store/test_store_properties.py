"""Properties of the store: what goes in comes out, under one name, and no changed byte is missed."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpipe.errors import StoreError
from qpipe.store import Store, manifest

part = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in {".", ".."}
)
contents = st.binary(max_size=200)
FILES = st.dictionaries(st.one_of(part, st.tuples(st.just("in"), part).map("/".join)), contents, max_size=5).filter(
    lambda files: "in" not in files
)


def write(home: Path, files: dict[str, bytes], order: int = 1, mtime: float | None = None) -> Path:
    home.mkdir()
    for name in sorted(files, reverse=order < 0):
        path = home / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(files[name])
        if mtime is not None:
            os.utime(path, (mtime, mtime))
    return home


@settings(max_examples=25, deadline=None)
@given(files=FILES)
def test_round_trip(files):
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        store = Store(home / "store")
        digest = store.put_folder(write(home / "in", files))
        got = Store(home / "store").folder(digest)
        assert {path: (got / path).read_bytes() for path in manifest.list_files(got)} == files
        wanted = manifest.scan(got)
        assert manifest.parse(wanted.text) == wanted
        assert store.size() == sum(map(len, files.values()))


@settings(max_examples=25, deadline=None)
@given(files=FILES)
def test_digest_does_not_depend_on_order_time_or_mode(files):
    with tempfile.TemporaryDirectory() as name:
        one = write(Path(name) / "one", files)
        two = write(Path(name) / "two", files, order=-1, mtime=1e9)
        (two / "an empty folder").mkdir()
        manifest.protect(two)
        assert manifest.scan(one).digest == manifest.scan(two).digest


@settings(max_examples=30, deadline=None)
@given(one=FILES, two=FILES)
def test_digests_are_equal_only_for_equal_content(one, two):
    with tempfile.TemporaryDirectory() as name:
        digests = [manifest.scan(write(Path(name) / str(i), files)).digest for i, files in enumerate((one, two))]
    assert (digests[0] == digests[1]) == (one == two)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), content=st.binary(min_size=1, max_size=100))
def test_any_changed_byte_is_found(data, content):
    place = data.draw(st.integers(0, len(content) - 1))
    flip = data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name) / "store")
        digest = store.put_bytes(content)
        path = store.folder(digest) / "data"
        changed = bytearray(content)
        changed[place] ^= flip
        path.chmod(0o644)
        path.write_bytes(changed)
        for reader in (store, Store(Path(name) / "store")):
            with pytest.raises(StoreError, match="was changed"):
                reader.folder(digest)
