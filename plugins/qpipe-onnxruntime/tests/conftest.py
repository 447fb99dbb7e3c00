"""Small real models, quantized by onnxruntime's own tools."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from device_fixtures import board, phone, sshd
from onnx import TensorProto, helper, numpy_helper
from qpipe_onnxruntime.backend import OnnxRuntimeBackend

from qpipe.engines import write_engine
from qpipe.quant.schemes import ORT_X86_VNNI
from qpipe.records.engine import Engine, Prepared
from qpipe.records.model import OnnxFile
from qpipe.records.quantization import NodeChoice, QuantPlan
from qpipe.records.target import Target
from qpipe.records.tensors import Signature, TensorSpec
from qpipe.testing.progress import Silent

__all__ = ["board", "phone", "sshd"]

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("N", 3, 8, 8)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("N", 4)),),
)


@dataclass(frozen=True)
class Kit:
    """Builds models, prepared records and engines in one folder."""

    folder: Path

    def network(self, name: str = "float.onnx", *, batch: int | str = "N", opset: int = 17) -> Path:
        """Conv-Clip, Conv-Relu, ConvTranspose, Gemm; weights from a fixed seed."""
        random = np.random.default_rng(0)
        shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "wt": (8, 8, 2, 2), "w3": (8, 4), "b3": (4,)}
        weights = {key: random.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
        weights |= {"lo": np.float32(0), "hi": np.float32(3)}
        nodes = [
            helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
            helper.make_node("Clip", ["c1", "lo", "hi"], ["r1"], name="clip1"),
            helper.make_node("Conv", ["r1", "w2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
            helper.make_node("ConvTranspose", ["r2", "wt"], ["t"], name="up", strides=[2, 2]),
            helper.make_node("GlobalAveragePool", ["t"], ["g"], name="pool"),
            helper.make_node("Flatten", ["g"], ["f"], name="flat"),
            helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="head"),
        ]
        graph = helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
            [numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        return self.save(model, name)

    def static(self, source: Path, name: str = "int8.onnx", activation: str = "QUInt8") -> Path:
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                rows = np.random.default_rng(1).normal(size=(16, 3, 8, 8)).astype(np.float32)
                self.left = iter([{"x": rows}])

            def get_next(self) -> dict[str, np.ndarray] | None:
                return next(self.left, None)

        quantize_static(
            source,
            self.folder / name,
            Reader(),
            activation_type=QuantType[activation],
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        return self.folder / name

    def save(self, model: onnx.ModelProto, name: str) -> Path:
        onnx.save(model, self.folder / name)
        return self.folder / name

    def prepared(self, graph: Path, qdq: Path | None = None, nodes: tuple[NodeChoice, ...] = ()) -> Prepared:
        plan = QuantPlan(scheme=ORT_X86_VNNI, mode="static", activations=(), weights=(), nodes=nodes) if qdq else None
        return Prepared(graph=_file(graph), plan=plan, qdq=_file(qdq) if qdq else None, shapes=(), signature=SIGNATURE)

    def engine(self, prepared: Prepared, target: Target, signature: Signature = SIGNATURE) -> Engine:
        workdir = self.folder / "engine"
        workdir.mkdir()
        built = OnnxRuntimeBackend().build(prepared, target, workdir, Silent())
        return write_engine(
            workdir,
            built,
            model="network",
            model_digest="1" * 64,
            recipe="int8",
            target=target.name,
            backend="onnxruntime",
            signature=signature,
        )


def _file(path: Path) -> OnnxFile:
    data = path.read_bytes()
    return OnnxFile(path=path, digest=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(tmp_path)


@pytest.fixture
def build(tmp_path: Path, local: Target) -> Callable[..., object]:
    """Builds a prepared model into a folder of its own."""

    def _build(prepared: Prepared, target: Target = local) -> object:
        workdir = tmp_path / "built"
        workdir.mkdir()
        return OnnxRuntimeBackend().build(prepared, target, workdir, Silent())

    return _build


@pytest.fixture
def local() -> Target:
    return Target(name="cpu-local", backend="onnxruntime")
