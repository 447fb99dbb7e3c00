"""The store: round trips, tampering, locks, kills, full and read-only disks, remote file systems."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qpipe.errors import ConfigError, StoreError
from qpipe.store import Store
from qpipe.store.failures import store_error

ROOT = Path(__file__).parents[2]


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def python(code: str, *args: object) -> subprocess.Popen[str]:
    """A process of its own that can import qpipe."""
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + textwrap.dedent(code),
            *map(str, args),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )


def leftovers(store: Store) -> list[Path]:
    return [path for name in ("tmp", "locks") for path in (store.root / name).rglob("*")]


def test_round_trip_keeps_names_bytes_and_executable_bits(tmp_path):
    source = folder_of(tmp_path / "in", {"a.bin": b"\x00\x01", "deep/b.txt": b"b", "tool": b"#!"})
    (source / "tool").chmod(0o755)
    store = Store(tmp_path / "store")
    digest = store.put_folder(source)
    got = store.folder(digest)
    assert got == tmp_path / "store" / "objects" / digest
    assert {p.relative_to(got).as_posix(): p.read_bytes() for p in got.rglob("*") if p.is_file()} == {
        "a.bin": b"\x00\x01",
        "deep/b.txt": b"b",
        "tool": b"#!",
    }
    assert (got / "a.bin").stat().st_mode & 0o777 == 0o444
    assert (got / "tool").stat().st_mode & 0o777 == 0o555
    assert store.put_folder(source) == digest
    assert store.size() == 5
    assert leftovers(store) == []


def test_put_bytes_is_a_folder_with_one_file(tmp_path):
    store = Store(tmp_path / "store")
    digest = store.put_bytes(b"hello", name="x.txt")
    assert (store.folder(digest) / "x.txt").read_bytes() == b"hello"
    assert digest == store.put_folder(folder_of(tmp_path / "in", {"x.txt": b"hello"}))
    assert digest != store.put_bytes(b"hello", name="y.txt")


@pytest.mark.parametrize("change", ["bytes", "missing", "extra", "manifest"])
def test_tampering_is_found_by_another_process_and_by_this_one(tmp_path, change):
    store = Store(tmp_path / "store")
    digest = store.put_bytes(b"hello", name="x.txt")
    store.folder(digest)
    path = store.folder(digest) / "x.txt"
    if change == "bytes":
        path.chmod(0o644)
        path.write_bytes(b"hellp")
        path.chmod(0o444)
    elif change == "missing":
        path.unlink()
    elif change == "extra":
        (path.parent / "y.txt").write_bytes(b"")
    else:
        manifest = store.root / "manifests" / f"{digest}.json"
        manifest.write_text(manifest.read_text().replace("x.txt", "z.txt"))
    fresh = Store(tmp_path / "store")
    with pytest.raises(StoreError, match=r"was changed: expected sha256 .*, found ") as caught:
        fresh.folder(digest)
    assert caught.value.code == 5
    if change == "bytes":
        assert "x.txt" in str(caught.value)
        assert "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" in str(caught.value)
    if change != "manifest":  # this process verified the manifest's digest when it wrote it
        with pytest.raises(StoreError, match="was changed"):
            store.folder(digest)


def test_put_heals_a_tampered_object(tmp_path):
    store = Store(tmp_path / "store")
    source = folder_of(tmp_path / "in", {"x": b"right"})
    digest = store.put_folder(source)
    path = store.folder(digest) / "x"
    path.chmod(0o644)
    path.write_bytes(b"wrong")
    assert store.put_folder(source) == digest
    assert (store.folder(digest) / "x").read_bytes() == b"right"
    assert leftovers(store) == []


def test_missing_objects_and_bad_names_are_refused(tmp_path):
    store = Store(tmp_path / "store")
    with pytest.raises(StoreError, match="no object"):
        store.folder("0" * 64)
    with pytest.raises(StoreError, match="not a digest"):
        store.folder("../etc")
    with pytest.raises(StoreError, match="cannot be a name"):
        store.remember("cells", "../../x", "{}")
    assert not store.has("0" * 64)
    assert store.recall("cells", "nothing") is None
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("kind", ["link", "fifo", "link to a folder"])
def test_only_plain_files_are_stored(tmp_path, kind):
    source = folder_of(tmp_path / "in", {"x": b"1"})
    if kind == "fifo":
        os.mkfifo(source / "odd")
    else:
        (source / "odd").symlink_to("x" if kind == "link" else tmp_path)
    with pytest.raises(StoreError, match="odd is"):
        Store(tmp_path / "store").put_folder(source)


def test_keys(tmp_path):
    store = Store(tmp_path / "store")
    store.remember("cells", "k", '{"a": 1}')
    store.remember("cells", "k", '{"a": 2}')
    assert store.recall("cells", "k") == '{"a": 2}'
    assert store.recall("runs", "k") is None
    assert (tmp_path / "store/keys/cells/k.json").is_file()
    assert leftovers(store) == []


def test_concurrent_puts_of_one_object(tmp_path):
    source = folder_of(tmp_path / "in", {f"f{i}": bytes([i]) * 1000 for i in range(20)})
    stores = [Store(tmp_path / "store") for _ in range(12)]
    with ThreadPoolExecutor(12) as pool:
        digests = set(pool.map(lambda store: store.put_folder(source), stores))
    assert len(digests) == 1
    assert Store(tmp_path / "store").folder(digests.pop()).is_dir()
    assert leftovers(stores[0]) == []


def test_made_once_runs_once_over_threads_and_processes(tmp_path):
    code = """
    import time
    from pathlib import Path
    from qpipe.store import Store
    def make(folder):
        with open(sys.argv[2], "a") as log: log.write("made\\n")
        time.sleep(0.3)
        (folder / "x").write_text("1")
    print(Store(sys.argv[1]).made_once("prepared", "k", make))
    """
    processes = [python(code, tmp_path / "store", tmp_path / "log") for _ in range(3)]
    paths = {process.communicate()[0] for process in processes}
    assert len(paths) == 1
    assert (tmp_path / "log").read_text() == "made\n"
    calls = []
    store = Store(tmp_path / "other")

    def make(folder):
        calls.append(1)
        time.sleep(0.1)
        (folder / "x").write_text("1")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: store.made_once("prepared", "k", make), range(8)))) == 1
    assert calls == [1]
    assert json.loads(store.recall("prepared", "k") or "")["object"] == store.made_once("prepared", "k", make).name


def test_made_once_leaves_nothing_after_an_exception(tmp_path):
    store = Store(tmp_path / "store")

    def make(folder):
        (folder / "half").write_text("1")
        raise OSError(errno.EIO, "the user's own trouble")

    with pytest.raises(OSError, match="own trouble"):
        store.made_once("prepared", "k", make)
    assert store.recall("prepared", "k") is None
    assert leftovers(store) == []
    assert store.size() == 0


def test_made_once_makes_again_what_was_deleted(tmp_path):
    store = Store(tmp_path / "store")
    first = store.made_once("prepared", "k", lambda folder: (folder / "x").write_text("1") and None)
    (first / "x").unlink()
    first.rmdir()
    assert store.made_once("prepared", "k", lambda folder: (folder / "x").write_text("2") and None) != first


def test_a_killed_maker_leaves_nothing_and_frees_its_lock(tmp_path):
    code = """
    import time
    from qpipe.store import Store
    def make(folder):
        (folder / "half").write_text("1")
        print("making", flush=True)
        time.sleep(60)
    Store(sys.argv[1]).made_once("prepared", "k", make)
    """
    with python(code, tmp_path / "store") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "making\n"
        alive = Store(tmp_path / "store")
        alive.clean()  # takes nothing away from a living owner
        assert len(list((tmp_path / "store/tmp").glob("*/half"))) == 1
        process.send_signal(signal.SIGKILL)
    store = Store(tmp_path / "store")
    began = time.monotonic()
    made = store.made_once("prepared", "k", lambda folder: (folder / "x").write_text("1") and None)
    assert time.monotonic() - began < 5
    assert sorted(path.name for path in made.iterdir()) == ["x"]
    assert leftovers(store) == []


def test_lock_excludes_threads_and_is_free_after_its_owner_dies(tmp_path):
    store = Store(tmp_path / "store")
    inside: list[int] = []
    most: list[int] = []

    def work(_):
        with store.lock("host"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.005)
            inside.pop()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert max(most) == 1
    code = """
    import time
    from qpipe.store import Store
    with Store(sys.argv[1]).lock("host"):
        print("held", flush=True)
        time.sleep(60)
    """
    with python(code, tmp_path / "store") as process:
        assert process.stdout is not None
        process.stdout.readline()
        got = threading.Event()
        waiter = threading.Thread(target=lambda: (store.lock("host").__enter__(), got.set()), daemon=True)
        waiter.start()
        assert not got.wait(0.2)
        process.kill()
        assert got.wait(5)


def test_locks_of_killed_processes_are_swept(tmp_path):
    store = Store(tmp_path / "store")
    code = """
    import os
    from qpipe.store import Store
    with Store(sys.argv[1]).lock("gone"):
        os._exit(1)
    """
    with python(code, tmp_path / "store") as process:
        process.wait()
    with store.lock("held"):
        assert len(leftovers(store)) == 2
        store.clean()
        assert [path.name for path in leftovers(store)] == ["held.lock"]


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path):
    source = folder_of(tmp_path / "in", {"big": bytes(200_000)})
    code = """
    import resource, signal
    from pathlib import Path
    from qpipe.errors import StoreError
    from qpipe.store import Store
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    store, source = Store(sys.argv[1]), Path(sys.argv[2])
    big = lambda folder: (folder / "big").write_bytes(bytes(200_000)) and None
    for work in (lambda: store.put_folder(source), lambda: store.made_once("prepared", "k", big)):
        try:
            work()
        except StoreError as error:
            print(error.code, error.message, error.hint)
    """
    put, made = python(code, tmp_path / "store", source).communicate()[0].splitlines()
    for line in (put, made):
        assert line.startswith("5 cannot write an object in the store ")
        assert "ulimit" in line
    assert leftovers(Store(tmp_path / "store")) == []
    assert not (tmp_path / "store/objects").exists()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    full = store_error(OSError(errno.ENOSPC, "No space left on device", "/d/x"), "store /in", Path("/d"))
    assert full.message == "cannot store /in in the store /d: No space left on device (/d/x)"
    assert "free some space" in full.hint


def test_a_read_only_folder_is_found_before_work():
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may write anywhere
        try:
            with pytest.raises(ConfigError, match="Permission denied") as caught:
                Store(home / "store").check_writable()
            with pytest.raises(StoreError, match="Permission denied"):
                Store(home / "store").put_bytes(b"1")
        finally:
            os.seteuid(user)
            home.chmod(0o755)
        assert caught.value.code == 2
        assert "writable" in caught.value.hint
        assert list(home.iterdir()) == []


def test_a_file_in_the_way_is_found_before_work(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(ConfigError, match="cannot write in the store"):
        Store(tmp_path / "store").check_writable()
    (tmp_path / "store").unlink()
    Store(tmp_path / "store").check_writable()
    assert leftovers(Store(tmp_path / "store")) == []


def test_file_urls_are_folders(tmp_path):
    digest = Store(f"file://{tmp_path}/my%20store").put_bytes(b"1")
    assert Store(tmp_path / "my store").folder(digest).is_dir()


class TestRemote:
    URL = "memory://qpipe-test/store"

    @pytest.fixture(autouse=True)
    def _fresh(self):
        import fsspec

        memory = fsspec.filesystem("memory")
        memory.store.clear()
        memory.pseudo_dirs[:] = [""]

    def test_objects_travel_to_another_cache(self, tmp_path):
        source = folder_of(tmp_path / "in", {"a": b"1", "deep/b": b"22"})
        here = Store(self.URL, cache=tmp_path / "here")
        there = Store(self.URL, cache=tmp_path / "there")
        digest = here.put_folder(source)
        assert there.has(digest)
        assert (there.folder(digest) / "deep/b").read_bytes() == b"22"
        assert there.folder(digest).is_relative_to(tmp_path / "there")
        assert there.size() == 3
        here.remember("cells", "k", "{}")
        assert there.recall("cells", "k") == "{}"
        assert there.recall("cells", "other") is None

    def test_made_once_is_found_by_another_cache(self, tmp_path):
        here = Store(self.URL, cache=tmp_path / "here")
        made = here.made_once("prepared", "k", lambda folder: (folder / "x").write_text("1") and None)

        def never(folder):
            raise AssertionError

        there = Store(self.URL, cache=tmp_path / "there").made_once("prepared", "k", never)
        assert there.name == made.name
        assert (there / "x").read_text() == "1"

    def test_a_changed_remote_file_is_found_and_not_kept(self, tmp_path):
        import fsspec

        digest = Store(self.URL, cache=tmp_path / "here").put_bytes(b"hello", name="x")
        memory = fsspec.filesystem("memory")
        memory.pipe_file(f"/qpipe-test/store/objects/{digest}/x", b"hellp")
        there = Store(self.URL, cache=tmp_path / "there")
        with pytest.raises(StoreError, match=r"x in memory://.* was changed: expected sha256 .*, found "):
            there.folder(digest)
        assert not (tmp_path / "there/objects").exists()
        memory.rm_file(f"/qpipe-test/store/objects/{digest}/x")
        with pytest.raises(StoreError, match="cannot read x"):
            there.folder(digest)
        with pytest.raises(StoreError, match="no object"):
            there.folder("0" * 64)

    def test_an_unknown_protocol_says_so(self):
        with pytest.raises(StoreError, match="nosuch"):
            Store("nosuch://bucket/x")


def test_importing_the_store_is_light():
    code = "import qpipe.store; print(sorted({'numpy', 'fsspec', 'pydantic', 'onnx'} & set(sys.modules)))"
    assert python(code).communicate()[0] == "[]\n"
