"""What a builder leaves for the next build of its key stands in the store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from qpipe.errors import BuildError
from qpipe.execute.work import learnt
from qpipe.plugins.backend import Learning
from qpipe.records.engine import Built
from qpipe.records.target import Target
from qpipe.store import Store
from qpipe.testing.fake import FakeBackend
from qpipe.testing.progress import Silent


@dataclass
class Pupil(FakeBackend):
    """Adds one line per build to what it was given."""

    def learnt_key(self, target: Target) -> str:
        return str(target.options.get("device", ""))

    def build_with(self, prepared, target, workdir, progress, learnt):  # noqa: ARG002 - the protocol's signature
        file = learnt / "lines"
        file.write_text((file.read_text() if file.exists() else "") + "line\n")
        if target.batch_sizes == (0,):
            raise BuildError("refused")
        return Built(files=(), placement=None, notes=(file.read_text(),))


@pytest.fixture
def bench(tmp_path):
    target = Target(name="t", backend="fake", options={"device": "H200-580.65"})
    cell = SimpleNamespace(target=target)
    return SimpleNamespace(backend=Pupil(), cell=cell, store=Store(tmp_path / "store"), progress=Silent())


def build(bench, tmp_path, **changes):
    bench.cell = SimpleNamespace(target=replace(bench.cell.target, **changes))
    return "".join(learnt.build(bench, None, tmp_path).notes)


def test_each_build_begins_with_what_the_last_one_of_its_device_left(bench, tmp_path):
    assert isinstance(bench.backend, Learning)
    assert build(bench, tmp_path) == "line\n"
    assert build(bench, tmp_path) == "line\nline\n"
    assert build(bench, tmp_path, options={"device": "H100-580.65"}) == "line\n"
    keys = sorted(path.stem for path in (tmp_path / "store/keys/learnt").iterdir())
    assert keys == ["H100-580.65", "H200-580.65"]


def test_a_build_that_fails_teaches_nothing(bench, tmp_path):
    build(bench, tmp_path)
    with pytest.raises(BuildError):
        build(bench, tmp_path, batch_sizes=(0,))
    assert build(bench, tmp_path, batch_sizes=(1,)) == "line\nline\n"


def test_what_is_broken_in_the_store_is_learnt_again(bench, tmp_path):
    build(bench, tmp_path)
    [lines] = (tmp_path / "store/objects").glob("*/lines")
    lines.chmod(0o644)
    lines.write_text("other\n")
    assert build(bench, tmp_path) == "line\n"


def test_a_backend_or_a_target_that_learns_nothing_builds_as_ever(bench, tmp_path):
    calls = []
    bench.backend = SimpleNamespace(
        name="plain", build=lambda *given: calls.append(given) or Built(files=(), placement=None)
    )
    build(bench, tmp_path)
    assert calls == [(None, bench.cell.target, tmp_path, bench.progress)]
    assert not (tmp_path / "store").exists()
