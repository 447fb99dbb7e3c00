"""The `.ort` file for phones: converted, compared, the same at each build, and not counted in the size."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from qpipe_onnxruntime.backend import OnnxRuntimeBackend
from qpipe_onnxruntime.mobile import OPERATORS, ORT_MODEL, USABILITY, compare, convert
from qpipe_onnxruntime.ort_format import UnknownFieldError, in_order

from qpipe.engines import write_engine
from qpipe.errors import BuildError
from qpipe.hosts.emulator import EmulatedDevice
from qpipe.hosts.qemu_root import root_state
from qpipe.hosts.remote import ONNXRUNTIME, Job, RemoteEngine
from qpipe.records.engine import Unavailable
from qpipe.records.target import Target
from qpipe.testing.progress import Silent

PHONE = Target(name="cpu-arm64", backend="onnxruntime", arch="aarch64", options={"mobile": True})


def _built(prepared, folder: Path, target: Target = PHONE):
    folder.mkdir()
    return OnnxRuntimeBackend().build(prepared, target, folder, Silent())


@pytest.fixture
def int8(kit):
    graph = kit.network()
    return kit.prepared(graph, kit.static(graph, activation="QInt8"))


def test_mobile_files_stand_beside_the_engine_and_are_not_its_size(int8, tmp_path):
    built = _built(int8, tmp_path / "e")
    assert built.artifacts == (Path(ORT_MODEL), Path(OPERATORS), Path(USABILITY))
    engine = write_engine(
        tmp_path / "e",
        built,
        model="m",
        model_digest="0" * 64,
        recipe="int8",
        target="cpu-arm64",
        backend="onnxruntime",
        signature=int8.signature,
    )
    assert engine.main_file.name == "model.onnx"
    assert engine.size_bytes == engine.main_file.stat().st_size
    listed = {file.name: file.sha256 for file in engine.files if file.artifact}
    assert listed == {
        name: hashlib.sha256((engine.path / name).read_bytes()).hexdigest()
        for name in (ORT_MODEL, OPERATORS, USABILITY)
    }
    notes = "\n".join(built.placement.notes)
    assert "model.ort (onnxruntime mobile, made for arm) agrees with model.onnx: " in notes
    assert "NNAPI as is: NO" in notes
    assert "CoreML NeuralNetwork as is: NO" in notes


def test_ort_file_computes_what_the_engine_computes(int8, tmp_path):
    _built(int8, tmp_path / "e")
    rows = np.random.default_rng(2).normal(size=(16, 3, 8, 8)).astype(np.float32)
    wanted, found = (
        onnxruntime.InferenceSession(str(tmp_path / "e" / name), providers=["CPUExecutionProvider"]).run(
            None, {"x": rows}
        )[0]
        for name in ("model.onnx", ORT_MODEL)
    )
    np.testing.assert_array_equal(wanted, found)


@pytest.mark.device
def test_ort_file_computes_the_same_on_an_emulated_arm64(int8, tmp_path):
    """It was fused for arm: there its kernels are those of a phone."""
    state = root_state()
    if isinstance(state, Unavailable):
        pytest.skip(f"{state.reason}: {state.hint}")
    _built(int8, tmp_path / "e")
    rows = np.random.default_rng(2).normal(size=(16, 3, 8, 8)).astype(np.float32)
    found = []
    for name in ("model.onnx", ORT_MODEL):
        job = Job(file=tmp_path / "e" / name, runtime=ONNXRUNTIME)
        engine = RemoteEngine(EmulatedDevice("qemu-aarch64"), job, timeout_s=120)
        found.append(engine.run((rows,)).outputs[0])
        engine.close()
    np.testing.assert_array_equal(*found)


def test_operators_of_a_minimal_build_are_listed_without_paths(int8, tmp_path):
    _built(int8, tmp_path / "e")
    text = (tmp_path / "e" / OPERATORS).read_text()
    assert "QLinearConv" in text
    assert "int8_t" in text
    assert str(tmp_path) not in text
    assert text.splitlines()[:2] == ["# Generated from model/s:", f"# - {ORT_MODEL}"]
    assert str(tmp_path) not in (tmp_path / "e" / USABILITY).read_text()


def test_every_build_gives_the_same_bytes(int8, tmp_path):
    """onnxruntime's own writer lists tensors in the order of its hash tables, which differs from build to build."""
    folders = [tmp_path / name for name in ("one", "another-with-a-longer-name", "third")]
    for folder in folders:
        _built(int8, folder)
    for name in (ORT_MODEL, OPERATORS, USABILITY):
        assert len({hashlib.sha256((folder / name).read_bytes()).digest() for folder in folders}) == 1


def test_a_field_that_is_not_known_is_never_dropped(int8, tmp_path):
    _built(int8, tmp_path / "e")
    data = bytearray((tmp_path / "e" / ORT_MODEL).read_bytes())
    root = struct.unpack_from("<I", data, 0)[0]
    vtable = root - struct.unpack_from("<i", data, root)[0]
    assert struct.unpack_from("<H", data, vtable + 8)[0] == 0  # the slot of the deprecated session state
    struct.pack_into("<H", data, vtable + 8, 4)
    with pytest.raises(UnknownFieldError, match="InferenceSession, field 2"):
        in_order(bytes(data))


def test_an_ort_file_that_computes_something_else_is_refused(int8, kit, tmp_path):
    _built(int8, tmp_path / "e")
    other = onnx.load(int8.deployable.path)
    head = next(tensor for tensor in other.graph.initializer if "b3" in tensor.name and len(tensor.dims))
    head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head)[::-1] + 99, head.name))
    onnx.save(other, tmp_path / "model.onnx")
    convert(tmp_path / "model.onnx")
    with pytest.raises(BuildError, match=r"model\.ort does not compute what model\.onnx computes"):
        compare(int8, tmp_path / "e" / "model.onnx", tmp_path / ORT_MODEL, PHONE)
    (tmp_path / ORT_MODEL).write_bytes(b"no flatbuffer")
    with pytest.raises(BuildError, match=r"model\.ort cannot be loaded"):
        compare(int8, tmp_path / "e" / "model.onnx", tmp_path / ORT_MODEL, PHONE)


def test_other_targets_have_no_mobile_files(int8, kit, tmp_path):
    assert _built(int8, tmp_path / "e", replace(PHONE, options={})).artifacts == ()


def test_the_float_model_converts_too(kit, tmp_path):
    built = _built(kit.prepared(kit.network()), tmp_path / "e")
    assert ORT_MODEL in {path.name for path in built.artifacts}


def test_half_precision_weights_are_no_smaller_there_and_it_is_said(kit, tmp_path, monkeypatch):
    from qpipe.quant.graph import open_graph, save_graph
    from qpipe.quant.storage.stored import store_half

    monkeypatch.setattr("qpipe_onnxruntime.mobile._COUNTS_FROM_BYTES", 0)
    monkeypatch.setattr("qpipe.quant.storage.stored.SMALLEST", 16)
    path = kit.folder / "stored.onnx"
    save_graph(store_half(open_graph(kit.network()), "float16"), path)
    built = _built(kit.prepared(path), tmp_path / "e")
    assert any("times the size: onnxruntime computes what is constant" in note for note in built.placement.notes)


def test_weights_of_four_bits_are_named_as_what_the_tool_does_not_know(tmp_path):
    random = np.random.default_rng(0)
    nodes = "d = DequantizeLinear<axis=1,block_size=16>(w, s) y = Conv(x, d)"
    head = '<ir_version: 10, opset_import: ["" : 21]> g (float[N,16,4,4] x) => (float[N,8,4,4] y)'
    model = onnx.parser.parse_model(f"{head} {{ {nodes} }}")
    whole = random.integers(-8, 8, (8, 16, 1, 1))
    model.graph.initializer.append(onnx.helper.make_tensor("w", onnx.TensorProto.INT4, whole.shape, whole.reshape(-1)))
    model.graph.initializer.append(numpy_helper.from_array(np.full((8, 1, 1, 1), 0.1, np.float32), "s"))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(BuildError, match="its tool does not know the element type INT4"):
        convert(tmp_path / "model.onnx")
