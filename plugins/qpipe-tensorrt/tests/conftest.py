"""Targets, prepared models and the real builder, where it is installed."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import onnx
import pytest
from qpipe_tensorrt.backend import TensorRT
from qpipe_tensorrt.products import RTX, installed_version

from qpipe.engines import write_engine
from qpipe.records.engine import Built, Engine, Prepared
from qpipe.records.model import OnnxFile
from qpipe.records.target import Target
from qpipe.records.tensors import ShapeRange, Signature, TensorSpec

if TYPE_CHECKING:
    import tensorrt_rtx


class Quiet:
    """Progress that remembers its steps."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.advanced = 0

    def step(self, name: str, *, total: int | None = None) -> None:  # noqa: ARG002 - the protocol's signature
        self.steps.append(name)

    def advance(self, amount: int = 1) -> None:
        self.advanced += amount


@pytest.fixture(scope="session")
def nets() -> ModuleType:
    """The networks of `nets.py`."""
    path = Path(__file__).with_name("nets.py")
    spec = importlib.util.spec_from_file_location("qpipe_tensorrt_nets", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def rtx() -> tensorrt_rtx:
    """NVIDIA's own package; what needs it is skipped where it is not installed."""
    if installed_version(RTX) is None:
        pytest.skip("tensorrt_rtx is not installed (pip install 'qpipe-tensorrt[rtx]')")
    import tensorrt_rtx

    return tensorrt_rtx


@pytest.fixture
def progress() -> Quiet:
    return Quiet()


@pytest.fixture
def target() -> Callable[..., Target]:
    """A TensorRT for RTX target of some capability."""

    def make(capability: str = "8.6", scheme: str = "", **options: object) -> Target:
        given = {"product": "tensorrt-rtx", "compute_capability": capability, **options}
        return Target(name="t", backend="tensorrt", scheme=scheme, batch_sizes=(1, 4), options=given)

    return make


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., Prepared]:
    """A model as a recipe's stages would hand it over: free dimensions range from 1 to 8."""

    def make(model: onnx.ModelProto, *, ranges: bool = True) -> Prepared:
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        file = OnnxFile(path=path, digest=hashlib.sha256(path.read_bytes()).hexdigest(), size_bytes=path.stat().st_size)
        signature = Signature(inputs=specs(model.graph.input), outputs=specs(model.graph.output))
        shapes = tuple(shape_range(spec) for spec in signature.inputs) if ranges else ()
        return Prepared(graph=file, plan=None, qdq=file, shapes=shapes, signature=signature)

    return make


@pytest.fixture
def build(
    rtx: ModuleType, prepared: Callable[..., Prepared], target: Callable[..., Target], tmp_path: Path, progress: Quiet
) -> Callable[..., Engine]:
    """Build and write an engine folder; the real builder."""

    def make(model: onnx.ModelProto, *, ranges: bool = True, **wanted: object) -> Engine:
        folder = tmp_path / f"engine{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        ready = prepared(model, ranges=ranges)
        built: Built = TensorRT().build(ready, target(**wanted), folder, progress)
        return write_engine(
            folder,
            built,
            model="m",
            model_digest=ready.graph.digest,
            recipe="r",
            target="t",
            backend="tensorrt",
            signature=ready.signature,
        )

    return make


def specs(values: object) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=value.name,
            dtype="float32",
            shape=tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
        )
        for value in values
    )


def shape_range(spec: TensorSpec) -> ShapeRange:
    ends = [tuple(dim if isinstance(dim, int) else size for dim in spec.shape) for size in (1, 4, 8)]
    return ShapeRange(name=spec.name, low=ends[0], best=ends[1], high=ends[2])
