"""What a store can do without: by what leads to it and by its age, never while somebody is at work."""

import json
import os
import time

import pytest

from qpipe.errors import ConfigError, StoreError
from qpipe.flow.finished.room import REMAKABLE, make_room
from qpipe.store import Store
from qpipe.store.objects import Objects
from qpipe.store.spare import NOTHING_LEADS, find_spare

OLD_DAYS = 30


@pytest.fixture
def store(tmp_path):
    """Evidence that leads to an engine, and all kinds of things that can be made again; all is old but `young`."""
    store = Store(tmp_path / "store")
    made = {name: store.put_bytes(name.encode()) for name in ("engine", "left", "prepared", "young", "shared")}
    made["evidence"] = store.put_bytes(json.dumps({"engine": made["engine"]}).encode(), name="evidence.json")
    store.remember("cells", "one", json.dumps({"evidence": made["evidence"]}))
    for space, name in (
        ("prepared", "prepared"),
        ("prepared", "shared"),
        ("engine", "engine"),
        ("statistics", "young"),
    ):
        store.remember(space, name, json.dumps({"object": made[name]}))
    store.remember("runs", "one", f'{{"at":"/somewhere/objects/{made["shared"]}"}}')
    store.remember("outputs", "dead", json.dumps({"object": "0" * 64}))
    then = time.time() - OLD_DAYS * 86400
    tomorrow = time.time() + 86400  # as of a clock that has been set back since
    for path in (*(store.root / "objects").iterdir(), *(store.root / "keys").rglob("*.json")):
        young = made["young"] in path.name or path.stem == "young"
        os.utime(path, (tomorrow, tomorrow) if young else (then, then))
    store.names = made
    return store


def names(store, found):
    by_digest = {digest: name for name, digest in store.names.items()}
    return {one.space: [by_digest[digest] for digest in one.objects] for one in found}


def test_only_what_nothing_else_leads_to_goes(store):
    found = store.sweep(REMAKABLE, until_s=time.time() - 86400)
    assert names(store, found) == {"prepared": ["prepared"], NOTHING_LEADS: ["left"], "outputs": []}
    assert {name for name, digest in store.names.items() if not store.has(digest)} == {"prepared", "left"}
    assert store.recall("prepared", "prepared") is None
    assert store.recall("outputs", "dead") is None
    assert store.recall("prepared", "shared") is not None
    assert not list((store.root / "tmp").iterdir())
    assert {path.stem for path in (store.root / "manifests").iterdir()} == {
        digest for name, digest in store.names.items() if name not in {"prepared", "left"}
    }


def test_what_went_is_made_again(store):
    store.sweep(REMAKABLE, until_s=time.time())
    again = store.made_once("prepared", "prepared", lambda folder: (folder / "data").write_bytes(b"prepared"))
    assert again.name == store.names["prepared"]


@pytest.mark.parametrize("older_days", [OLD_DAYS + 1, 1, 0])
def test_saying_it_removes_nothing_and_says_the_same(store, older_days):
    said = make_room(store, older_days=older_days, dry=True)
    assert store.has(store.names["left"])
    assert make_room(store, older_days=older_days) == said
    assert {one.what for one in said} == {
        OLD_DAYS + 1: set(),
        1: {"prepared graphs", "left by runs that were stopped"},
        0: {"prepared graphs", "left by runs that were stopped", "calibration statistics"},
    }[older_days]
    assert make_room(store, older_days=older_days) == ()


def test_nothing_goes_while_somebody_is_at_work(store):
    with store.at_work(), store.at_work(), pytest.raises(StoreError, match="a run is at work"):
        make_room(store, older_days=0)
    assert make_room(store, older_days=0)


def test_stopped_in_the_middle_the_store_is_whole(store, monkeypatch):
    monkeypatch.setattr(Objects, "remove", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_room(store, older_days=0)
    monkeypatch.undo()
    assert store.made_once("cells-of", "x", lambda folder: (folder / "data").write_bytes(b"x")).is_dir()
    make_room(store, older_days=0)
    assert find_spare(store.root, REMAKABLE, until_s=time.time()) == ()
    assert store.folder(store.names["evidence"]).is_dir()
    assert store.folder(store.names["engine"]).is_dir()


def test_no_store_and_one_that_is_elsewhere(tmp_path):
    with pytest.raises(ConfigError, match="there is no store in"):
        make_room(Store(tmp_path / "none"), older_days=0)
    with pytest.raises(ConfigError, match="is no folder on a disk here"):
        make_room(Store("memory://bucket/store", cache=tmp_path / "cache"), older_days=0)
    assert list(tmp_path.iterdir()) == []
