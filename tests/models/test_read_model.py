import gzip
import os
import pickle
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qpipe.errors import ModelError
from qpipe.models import confirm_onnx, digest_onnx, read_model


def tiny(*, op="Relu", domain="", opset=17, inputs=None, outputs=None, extra=(), initializers=()):
    inputs = inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, None])]
    outputs = outputs or [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, None])]
    nodes = [helper.make_node(op, ["x"], ["y"], name="act", domain=domain), *extra]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=list(initializers))
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def trees_alone():
    """As onnxmltools writes XGBoost: no operator of ONNX's own domain, nor its opset."""
    proto = tiny(op="Scaler", domain="ai.onnx.ml")
    del proto.opset_import[0]
    return proto


def written(folder, proto, name="m.onnx"):
    onnx.save(proto, folder / name)
    return folder / name


def external(folder, location="w.bin", *, rows=64):
    folder.mkdir(exist_ok=True)
    weight = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        initializer=[numpy_helper.from_array(weight, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    if location != "w.bin":
        proto = onnx.load(str(folder / "m.onnx"), load_external_data=False)
        proto.graph.initializer[0].external_data[0].value = location
        (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return folder / "m.onnx"


def test_signature_leaves_initializers_out(tmp_path):
    weight = numpy_helper.from_array(np.zeros(3, np.float32), "w")
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["N", 3, None]),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [3]),
    ]
    path = written(tmp_path, tiny(inputs=inputs, initializers=[weight]))
    model = read_model(path, name="m", origin=str(path))
    assert [str(spec) for spec in model.signature.inputs] == ["x: float16[N, 3, ?]"]
    assert [str(spec) for spec in model.signature.outputs] == ["y: float32[N, 3, ?]"]
    assert (model.opset, model.name, model.origin) == (17, "m", str(path))


def test_output_without_shape_is_inferred(tmp_path):
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    path = written(tmp_path, tiny(outputs=outputs))
    assert read_model(path, name="m", origin="").signature.outputs[0].shape[:2] == ("N", 3)


def test_digest_names_content_not_the_file(tmp_path):
    first, second = written(tmp_path, tiny()), written(tmp_path, tiny(), "other.onnx")
    changed = written(tmp_path, tiny(op="Sigmoid"), "changed.onnx")
    assert digest_onnx(first).digest == digest_onnx(second).digest != digest_onnx(changed).digest
    assert digest_onnx(first).size_bytes == first.stat().st_size


def test_digest_covers_external_data(tmp_path):
    path = external(tmp_path / "a")
    before = digest_onnx(path)
    data = path.parent / "w.bin"
    assert before.size_bytes == path.stat().st_size + data.stat().st_size
    content = bytearray(data.read_bytes())
    content[5] ^= 1
    data.write_bytes(content)
    os.utime(data, ns=(1, 1))
    assert digest_onnx(path).digest != before.digest


def test_a_model_that_was_changed_since_the_plan_is_told(tmp_path):
    whole, beside = digest_onnx(written(tmp_path, tiny())), digest_onnx(external(tmp_path / "a"))
    for file in (whole, beside):
        confirm_onnx(file)
    written(tmp_path, tiny(op="Sigmoid"))
    data = beside.path.parent / "w.bin"
    data.write_bytes(data.read_bytes()[::-1])
    os.utime(data, ns=(1, 1))
    for file in (whole, beside):
        with pytest.raises(ModelError, match="was changed after the run was planned"):
            confirm_onnx(file)


def test_external_data_is_not_parsed_into_memory(tmp_path):
    path = external(tmp_path / "a", rows=200_000)
    assert path.stat().st_size < 1000
    assert digest_onnx(path).size_bytes > 3_000_000


@pytest.mark.parametrize("location", ["../w.bin", "sub/../../w.bin", "/etc/hostname", "C:\\w.bin", "..\\w.bin", ""])
def test_external_data_outside_the_folder_is_refused(tmp_path, location):
    path = external(tmp_path / "a", location)
    shutil.copy(tmp_path / "a" / "w.bin", tmp_path / "w.bin")
    with pytest.raises(ModelError, match="outside the model's folder"):
        digest_onnx(path)


def test_external_data_through_a_link_is_refused(tmp_path):
    path = external(tmp_path / "a")
    (path.parent / "w.bin").rename(tmp_path / "w.bin")
    (path.parent / "w.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ModelError, match="outside the model's folder"):
        digest_onnx(path)


def test_external_data_with_two_names_is_refused_as_onnx_does(tmp_path):
    path = external(tmp_path / "a")
    data = path.parent / "w.bin"
    (tmp_path / "cache").hardlink_to(data)
    with pytest.raises(ModelError, match=r"w.bin is one file with 2 names \(hard links\)"):
        digest_onnx(path)
    shutil.copy(data, tmp_path / "copy")  # as the hint says
    (tmp_path / "copy").rename(data)
    assert digest_onnx(path).digest


def test_external_data_missing_or_short(tmp_path):
    path = external(tmp_path / "a")
    data = path.parent / "w.bin"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"has 100 bytes, but tensor 'w' ends at byte 1024"):
        digest_onnx(path)
    data.rename(path.parent / "w.bin2")
    with pytest.raises(ModelError, match=r"external data file 'w.bin' is missing; did you mean 'w.bin2'\?"):
        digest_onnx(path)


def content_npz(path):
    np.savez(path.with_suffix(".npz"), x=np.zeros(3))
    return path.with_suffix(".npz").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda _: b"", "is empty"),
        (lambda _: tiny().SerializeToString()[:-7], "begins like ONNX but ends early or is damaged"),
        (lambda _: tiny().SerializeToString()[:2], "holds no ONNX graph"),
        (content_npz, r"it looks like a zip archive \(NumPy .npz\)"),
        (lambda _: pickle.dumps({"a": 1}, protocol=4), "it looks like a Python pickle"),
        (lambda _: b"\x89HDF\r\n\x1a\n" + b"\0" * 40, "it looks like HDF5"),
        (lambda _: b"\x1c\0\0\0TFL3" + b"\xff" * 40, "it looks like a TensorFlow Lite model"),
        (lambda _: gzip.compress(tiny().SerializeToString()), "it looks like gzip"),
        (lambda _: b"<html>not found</html>", "it looks like HTML"),
        (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "it looks like a Git LFS pointer"),
        (lambda _: b"\xff" * 50, "it begins with the bytes ff ff"),
    ],
)
def test_not_a_model(tmp_path, content, message):
    path = tmp_path / "m.onnx"
    path.write_bytes(content(path))
    with pytest.raises(ModelError, match=message):
        read_model(path, name="m", origin="")


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (trees_alone(), "names no opset of the default ONNX domain, .*: it has Scaler"),
        (tiny(domain="my.ops", op="Magic"), "needs custom operators: my.ops::Magic"),
        (tiny(op="Reluu"), r"node 'act' has the operator 'Reluu', which ONNX opset 17 lacks; did you mean 'Relu'\?"),
        (tiny(op="Gelu"), "'Gelu', which ONNX opset 17 lacks"),
        (tiny(opset=9999), r"uses opset 9999; the installed onnx .* knows up to \d+"),
        (
            tiny(inputs=[helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)]),
            "input 'x' is a sequence, not a tensor",
        ),
        (
            tiny(inputs=[helper.make_tensor_value_info("x", TensorProto.STRING, [1])]),
            "input 'x' has elements of strings",
        ),
        (tiny(inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, None)]), "input 'x' has no shape"),
    ],
)
def test_model_that_cannot_be_used(tmp_path, proto, message):
    with pytest.raises(ModelError, match=message):
        read_model(written(tmp_path, proto), name="m", origin="")


def test_operators_that_onnxruntime_adds_to_the_default_domain_are_known(tmp_path):
    """Decoders exported for it normalize so; no domain says whose operator it is."""
    read_model(written(tmp_path, tiny(op="SimplifiedLayerNormalization")), name="m", origin="")


def test_local_functions_are_no_custom_operators(tmp_path):
    proto = tiny(domain="mine", op="Twice")
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    proto.functions.append(helper.make_function("mine", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    assert read_model(written(tmp_path, proto), name="m", origin="").opset == 17


def test_missing_file_names_its_neighbour(tmp_path):
    written(tmp_path, tiny(), "digits.onnx")
    with pytest.raises(ModelError, match=r"no such model file; did you mean 'digits.onnx'\?"):
        read_model(tmp_path / "digit.onnx", name="m", origin="")
    with pytest.raises(ModelError, match="is a folder"):
        read_model(tmp_path, name="m", origin="")


def test_an_output_of_text_is_told_with_how_to_leave_it_out(tmp_path):
    proto = tiny()
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(ModelError, match="has elements of strings") as raised:
        read_model(written(tmp_path, proto), name="m", origin="")
    assert "del model.graph.output" in raised.value.hint
