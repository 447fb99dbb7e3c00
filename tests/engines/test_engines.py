"""Engine folders: written once, verified at every read, refused on the wrong machine."""

import hashlib
import json
import platform
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpipe.engines import MANIFEST, check_requirements, cpu_flags, read_engine, write_engine
from qpipe.errors import BuildError, EngineError
from qpipe.records.engine import Built, Engine, Fact, Requirement
from qpipe.records.tensors import Signature, TensorSpec

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 3)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("n", None)),),
)


def built(*files: str, requires: tuple[Requirement, ...] = ()) -> Built:
    return Built(
        files=tuple(map(Path, files)),
        placement=None,
        facts=(Fact(name="arena", value=12.5, unit="bytes", kind="estimated"),),
        requires=requires,
        toolchain=(("onnxruntime", "1.2"),),
    )


def write(workdir: Path, made: Built) -> Engine:
    return write_engine(
        workdir,
        made,
        model="digits",
        model_digest="d" * 64,
        recipe="int8",
        target="cpu",
        backend="fake",
        signature=SIGNATURE,
        kind="measured",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    workdir = tmp_path / "work"
    (workdir / "data").mkdir(parents=True)
    (workdir / "model.onnx").write_bytes(b"main")
    (workdir / "data/weights.bin").write_bytes(b"weights")
    return workdir


def test_round_trip_in_another_folder(folder, tmp_path):
    engine = write(folder, built("model.onnx", "data/weights.bin"))
    assert engine == read_engine(folder)
    assert engine.main_file == folder / "model.onnx"
    assert engine.size_bytes == 11
    assert engine.digest == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    shutil.copytree(folder, tmp_path / "copy")
    copy = read_engine(tmp_path / "copy")
    assert (copy.digest, copy.path) == (engine.digest, tmp_path / "copy")


def test_what_the_toolchain_says_goes_with_the_engine(folder):
    write(folder, replace(built("model.onnx", "data/weights.bin"), notes=("a tactic was missing",)))
    assert read_engine(folder).notes == ("a tactic was missing",)


def test_manifest_does_not_name_its_place_and_is_canonical(folder, tmp_path):
    first = write(folder, built("model.onnx", "data/weights.bin"))
    text = (folder / MANIFEST).read_text()
    assert "path" not in json.loads(text)
    assert "digest" not in json.loads(text)
    assert str(tmp_path) not in text
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert write(folder, built("model.onnx", "data/weights.bin")).digest == first.digest


def test_files_beside_the_engine_are_not_its_own(folder):
    engine = write(folder, built("model.onnx", "data/weights.bin"))
    (folder / "MLmodel").write_text("of somebody else")
    assert read_engine(folder) == engine


def test_artifacts_are_verified_and_not_counted(folder):
    (folder / "model.c").write_bytes(b"a much longer file than the model")
    engine = write(folder, replace(built("model.onnx", "data/weights.bin"), artifacts=(Path("model.c"),)))
    assert [file.name for file in engine.files if file.artifact] == ["model.c"]
    assert engine.size_bytes == 11
    (folder / "model.c").write_bytes(b"another")
    with pytest.raises(EngineError, match=r"model\.c"):
        read_engine(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "built no files"),
        (("model.onnx",), "left data/weights.bin in the work folder"),
        (("model.onnx", "data/weights.bin", "gone"), "lists gone, but did not write it"),
        (("model.onnx", "data/weights.bin", "../x"), "lists ../x, which is no file"),
        (("/etc/passwd",), "lists /etc/passwd, which is no file"),
        (("model.onnx", "data/weights.bin", "engine.json"), "lists engine.json"),
        (("model.onnx", "data/weights.bin", "model.onnx"), "twice"),
    ],
)
def test_a_backend_that_lies_about_its_files_is_refused(folder, files, message):
    with pytest.raises(BuildError, match=message):
        write(folder, built(*files))
    assert not (folder / MANIFEST).exists()


@settings(max_examples=30, deadline=None)
@given(place=st.integers(0, 6), flip=st.integers(1, 255))
def test_any_changed_byte_is_found(tmp_path_factory, place, flip):
    workdir = tmp_path_factory.mktemp("engine")
    data = bytearray(b"weights")
    (workdir / "main").write_bytes(data)
    write(workdir, built("main"))
    data[place] ^= flip
    (workdir / "main").write_bytes(data)
    with pytest.raises(EngineError, match=r"main: expected sha256 .*, found ") as caught:
        read_engine(workdir)
    assert hashlib.sha256(b"weights").hexdigest() in str(caught.value)
    assert hashlib.sha256(data).hexdigest() in str(caught.value)


def test_truncated_missing_and_broken(folder, tmp_path):
    write(folder, built("model.onnx", "data/weights.bin"))
    (folder / "model.onnx").write_bytes(b"mai")
    with pytest.raises(EngineError, match=r"model\.onnx: expected 4 bytes, found 3"):
        read_engine(folder)
    (folder / "model.onnx").unlink()
    with pytest.raises(EngineError, match=r"model\.onnx: No such file"):
        read_engine(folder)
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace("model.onnx", "../model.onnx"))
    with pytest.raises(EngineError, match="outside the engine"):
        read_engine(folder)
    (folder / MANIFEST).write_text(text[:-2])
    with pytest.raises(EngineError, match="is broken"):
        read_engine(folder)
    with pytest.raises(EngineError, match="no engine in"):
        read_engine(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("what", "value", "reason"),
    [
        ("arch", platform.machine(), None),
        ("arch", "riscv128", "needs a riscv128 machine, this one is"),
        ("isa", sorted(cpu_flags())[0], None),
        ("isa", "avx9000", "needs the CPU flag avx9000"),
        ("isa_any", f"avx9000|{sorted(cpu_flags())[0]}", None),
        ("isa_any", "avx9000|avx9001", "needs the CPU flag avx9000 or avx9001, which this CPU lacks"),
        ("package", "numpy>=2", None),
        ("package", "numpy==1.0", r"needs numpy==1\.0, here is"),
        ("package", "no-such-package==1", "which is not installed"),
        ("package", "??", "not a package requirement"),
        ("gpu", "anything: its backend checks it", None),
    ],
)
def test_requirements(folder, what, value, reason):
    engine = write(folder, built("model.onnx", "data/weights.bin", requires=(Requirement(what=what, value=value),)))
    if reason is None:
        check_requirements(read_engine(folder))
        return
    with pytest.raises(EngineError, match=reason) as caught:
        check_requirements(engine)
    assert caught.value.code == 5
    assert "target cpu" in caught.value.hint
