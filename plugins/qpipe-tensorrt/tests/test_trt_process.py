"""The builder's own process: crashes, an absent package, and the timing cache of the other product."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
from qpipe_tensorrt import backend, build, child
from qpipe_tensorrt.backend import TensorRT
from qpipe_tensorrt.driver import Gpu, NoGpu
from qpipe_tensorrt.products import ENTERPRISE, installed_version
from qpipe_tensorrt.timingcache import FILE, TimingCache, cache_key, load_cache, save_cache

from qpipe.errors import BuildError, UnavailableError
from qpipe.plugins.backend import Learning
from qpipe.records.engine import Prepared
from qpipe.records.model import OnnxFile
from qpipe.records.tensors import ShapeRange, Signature

GPU = Gpu(index=0, name="NVIDIA H200", capability="9.0", driver="580.65")


@pytest.mark.parametrize(
    ("work", "cause"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import sys; sys.stdin.buffer.read(); sys.exit(3)", "exit code 3"),
    ],
)
def test_a_builder_that_dies_is_an_error_of_its_cell(
    *, nets, prepared, target, tmp_path, progress, monkeypatch, rtx, work, cause
):
    monkeypatch.setattr(child, "_WORK", work)
    with pytest.raises(BuildError, match=rf"the TensorRT builder died \({cause}\)"):
        TensorRT().build(prepared(nets.small()), target(), tmp_path, progress)


@pytest.mark.skipif(installed_version(ENTERPRISE) is not None, reason="the package tensorrt is installed")
def test_a_package_that_is_not_there_is_named(*, nets, prepared, target, tmp_path, progress):
    with pytest.raises(UnavailableError, match="the package tensorrt is not installed") as error:
        TensorRT().build(prepared(nets.small()), target("9.0", product="tensorrt"), tmp_path, progress)
    assert "qpipe-tensorrt[enterprise]" in error.value.hint
    assert error.value.code == 5


TURNS = "worker.take_turns = lambda: (given := take()) and not print([{how}], file=open('how', 'w')) or given"
HOW = "os.sched_getscheduler(0) == os.SCHED_FIFO, len(os.sched_getaffinity(0)) == 1"


@pytest.mark.parametrize("options", [{}, {"reproducible": False}])
def test_builds_take_turns_on_one_cpu_or_say_that_they_may_not(
    *, rtx, nets, prepared, target, tmp_path, progress, monkeypatch, options
):
    told = f"import os; from qpipe_tensorrt import worker; take = worker.take_turns; {TURNS.format(how=HOW)}"
    monkeypatch.setattr(child, "_WORK", f"{told}; worker.main()")
    built = TensorRT().build(prepared(nets.small()), target(**options), tmp_path, progress)
    seen = tmp_path / "how"
    in_turn = seen.is_file()
    assert not in_turn or seen.read_text() == "[True, True]\n"
    assert not (in_turn and options)
    assert ("no first-in-first-out schedule" in " ".join(built.notes)) == (not in_turn and not options)


def test_a_thread_that_never_gives_way_costs_the_turns_not_the_build(
    *, rtx, nets, prepared, target, tmp_path, progress, monkeypatch
):
    """On one CPU, first in first out, it would wait for ever for a thread that never gets its turn."""
    kill = "os.kill(os.getpid(), 24)"  # SIGXCPU, as the limit of a turn sends it
    wait = f"job = marshal.load(open('order', 'rb')); job[-1] and {kill}"
    monkeypatch.setattr(child, "_WORK", f"import marshal, os; {wait}; {child._WORK}")
    built = TensorRT().build(prepared(nets.small()), target(), tmp_path, progress)
    assert "no first-in-first-out schedule" in " ".join(built.notes)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "model.onnx") == sorted(
        map(str, built.files)
    )


def test_two_builds_leave_one_engine_and_only_that_one_knows_the_timing_cache(
    *, rtx, nets, prepared, target, tmp_path, progress, monkeypatch
):
    """Builds that read the same tactics would not vary. The core gives the folder of the cache."""
    caches = []

    def run(order, folder, progress):
        caches.append(order.cache)
        return child.run_build(order, folder, progress)

    monkeypatch.setattr(build, "run_build", run)
    for name in ("work", "learnt"):
        (tmp_path / name).mkdir()
    ready, learnt = prepared(nets.small()), tmp_path / "learnt"
    built = TensorRT().build_with(ready, target(builds=2), tmp_path / "work", progress, learnt)
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == sorted(str(file) for file in built.files)
    assert caches == [TimingCache(file=learnt / FILE), None]
    building = [step for step in progress.steps if step.endswith("tensorrt: building engine")]
    assert building == [f"build {number} of 2: tensorrt: building engine" for number in (1, 2)]
    assert [path.name for path in learnt.iterdir()] == [FILE]


def test_weights_beside_the_model_and_other_folders_give_the_same_bytes(*, rtx, nets, target, tmp_path, progress):
    """External data is found; neither the folder nor the environment is in the engine's bytes."""
    made = []
    for folder in (tmp_path / "a", tmp_path / ("b" * 90)):
        folder.mkdir()
        (folder / "engine").mkdir()
        onnx.save(
            nets.small(), folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=64
        )
        file = OnnxFile(path=folder / "model.onnx", digest="", size_bytes=0)
        span = ShapeRange(name="input", low=(1, 3, 16, 16), best=(1, 3, 16, 16), high=(4, 3, 16, 16))
        signature = Signature(inputs=(), outputs=())
        ready = Prepared(graph=file, plan=None, qdq=file, shapes=(span,), signature=signature)
        built = TensorRT().build(ready, target(), folder / "engine", progress)
        assert built.placement.integer == 4
        made.append((folder / "engine/engine.trt").read_bytes())
    assert (tmp_path / "a/weights.bin").stat().st_size > 0
    assert child.randomized() or made[0] == made[1]


def test_a_timing_cache_is_of_one_gpu_driver_and_version():
    keys = {
        cache_key(version, replace(GPU, name=name, driver=driver))
        for version in ("11.4.0", "11.5.0")
        for name in ("NVIDIA H200", "NVIDIA H100")
        for driver in ("580.65", "590.1")
    }
    assert len(keys) == 8
    assert all(key.startswith("tensorrt-timing-") for key in keys)


@pytest.mark.parametrize(
    ("options", "version", "gpus", "kept"),
    [
        ({"product": "tensorrt"}, "11.4.0", (GPU,), True),
        ({"product": "tensorrt"}, "11.4.0", NoGpu(reason="none"), False),
        ({"product": "tensorrt"}, None, (GPU,), False),
        ({"product": "tensorrt", "timing_cache": False}, "11.4.0", (GPU,), False),
        ({"capability": "8.9"}, "1.7.1.116", (replace(GPU, capability="8.9"),), False),
    ],
)
def test_tactics_are_kept_where_the_builder_measures_them(*, target, monkeypatch, options, version, gpus, kept):
    monkeypatch.setattr(backend, "installed_version", lambda _: version)
    monkeypatch.setattr(backend, "find_gpus", lambda: gpus)
    wanted = target(**{"capability": "9.0"} | options)
    assert isinstance(TensorRT(), Learning)
    assert TensorRT().learnt_key(wanted) == (cache_key("11.4.0", GPU) if kept else "")


def test_the_builder_takes_and_gives_a_timing_cache(rtx, tmp_path):
    """The calls exist in TensorRT for RTX too, where they are without effect and say so."""
    config = rtx.Builder(rtx.Logger(rtx.Logger.ERROR)).create_builder_config()
    for step in (load_cache, save_cache, load_cache):
        with pytest.warns(DeprecationWarning, match="no-ops"):
            step(str(tmp_path / FILE), config)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


class Caching:
    """A builder's config that takes some caches and refuses others, as `tensorrt` does with those of another GPU."""

    def __init__(self, taken: tuple[bytes, ...]) -> None:
        self.taken, self.cache = taken, None

    def create_timing_cache(self, data):
        return None if data == b"broken" else data

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        if cache in self.taken:
            self.cache = cache
        return cache in self.taken


@pytest.mark.parametrize(
    ("stored", "given", "complains"),
    [(b"mine", b"mine", False), (b"another GPU's", b"", True), (b"broken", b"", True), (None, b"", False)],
)
def test_a_timing_cache_that_is_refused_is_told_and_begun_anew(tmp_path, stored, given, complains):
    if stored is not None:
        (tmp_path / FILE).write_bytes(stored)
    config = Caching((b"mine", b""))
    assert bool(load_cache(str(tmp_path / FILE), config)) == complains
    assert config.cache == given
