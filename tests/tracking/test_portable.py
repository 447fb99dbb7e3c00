import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qpipe.engines import write_engine
from qpipe.errors import EngineError
from qpipe.records.engine import Built, Requirement
from qpipe.records.tensors import Signature, TensorSpec
from qpipe.tracking.portable import export_portable

WEIGHTS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
ROWS = np.array([[1, 2, 3, 4], [0.5, 0, -1, 2]], np.float32)

READER = """
import json, sys, warnings
sys.modules["qpipe"] = None
warnings.simplefilter("ignore")
import mlflow.pyfunc, numpy as np
rows, whole, changed = np.array(json.loads(sys.argv[1]), np.float32), *sys.argv[2:]
answer = mlflow.pyfunc.load_model(whole).predict({"x": rows})
print(json.dumps({name: value.tolist() for name, value in answer.items()}))
mlflow.pyfunc.load_model(changed)
"""


@pytest.fixture
def build(tmp_path):
    def build_engine(backend="onnxruntime", requires=()):
        folder = tmp_path / "engine"
        folder.mkdir()
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "gemm",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
            [numpy_helper.from_array(WEIGHTS, "w")],
        )
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "m.onnx"
        )
        signature = Signature(
            inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 4)),),
            outputs=(TensorSpec(name="y", dtype="float32", shape=("N", 3)),),
        )
        write_engine(
            folder,
            Built(files=(Path("m.onnx"),), placement=None, requires=requires),
            model="gemm",
            model_digest="ab" * 32,
            recipe="int8",
            target="cpu-local",
            backend=backend,
            signature=signature,
        )
        return folder

    return build_engine


def read(whole, changed, make):
    environment = make.environment()
    environment.pop("PYTHONPATH")
    command = [sys.executable, "-c", READER, json.dumps(ROWS.tolist()), str(whole), str(changed)]
    return subprocess.run(command, cwd=whole.parent, env=environment, capture_output=True, text=True, check=False)


def test_a_portable_engine_answers_where_qpipe_is_not_and_one_that_was_changed_is_refused(build, make, tmp_path):
    whole = export_portable(build(), tmp_path / "portable")
    changed = shutil.copytree(whole, tmp_path / "changed")
    (path,) = changed.rglob("m.onnx")
    path.write_bytes(path.read_bytes() + b"x")

    done = read(whole, changed, make)

    np.testing.assert_allclose(json.loads(done.stdout)["y"], ROWS @ WEIGHTS, rtol=1e-5, err_msg=done.stderr)
    assert done.returncode == 1
    assert "was changed after it was built" in done.stderr
    assert "qpipe" not in (whole / "requirements.txt").read_text()


def test_only_engines_of_onnxruntime_are_portable(build, tmp_path):
    with pytest.raises(EngineError, match="of backend litert"):
        export_portable(build(backend="litert"), tmp_path / "portable")


def test_a_folder_that_exists_is_left_alone(build, tmp_path):
    with pytest.raises(EngineError, match="exists already"):
        export_portable(build(requires=(Requirement(what="isa", value="avx"),)), tmp_path)
