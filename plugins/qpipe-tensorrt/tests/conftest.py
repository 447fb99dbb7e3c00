"""Targets, prepared models and the real builder, where it is installed."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import onnx
import pytest
from qpipe_tensorrt.backend import TensorRT
from qpipe_tensorrt.products import RTX, installed_version

from qpipe.engines import read_engine, write_engine
from qpipe.records.engine import Engine, Prepared
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
    return load_module("qpipe_tensorrt_nets", Path(__file__).with_name("nets.py"))


@pytest.fixture(scope="session")
def quantizer_cases() -> ModuleType:
    """The graphs of the quantizer's own tests."""
    path = Path(__file__).resolve().parents[3] / "tests/quant/test_generality.py"
    if not path.is_file():
        pytest.skip("the core's tests are not beside this plugin")
    return load_module("qpipe_tensorrt_quantizer_cases", path)


@pytest.fixture(scope="session")
def rtx() -> tensorrt_rtx:
    """NVIDIA's own package; what needs it is skipped where it is not installed."""
    if installed_version(RTX) is None:
        pytest.skip("tensorrt_rtx is not installed (pip install 'qpipe-tensorrt[rtx]')")
    import tensorrt_rtx

    return tensorrt_rtx


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Compiles `cuda_on_host.c`, for a machine with two GPUs unless said otherwise."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("cuda")

    def make(init: int = 0, count: int = 2) -> str:
        made = folder / f"libcuda-{init}-{count}.so"
        if not made.exists():
            source = Path(__file__).with_name("cuda_on_host.c")
            defines = [f"-DINIT={init}", f"-DCOUNT={count}"]
            subprocess.run([compiler, "-shared", "-fPIC", "-w", *defines, "-o", str(made), str(source)], check=True)
        return str(made)

    return make


@pytest.fixture
def progress() -> Quiet:
    return Quiet()


@pytest.fixture
def target() -> Callable[..., Target]:
    """A TensorRT for RTX target of some capability."""
    return make_target


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., Prepared]:
    """A model as a recipe's stages would hand it over: free dimensions range from 1 to 8."""
    return partial(make_prepared, tmp_path)


@pytest.fixture
def build(rtx: ModuleType, tmp_path: Path, progress: Quiet) -> Callable[..., Engine]:
    """Build and write an engine folder; the real builder."""
    return partial(make_engine, tmp_path, progress)


@pytest.fixture(scope="session")
def built_once(rtx: ModuleType, nets: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The engine of the small network for 8.6; not to be changed."""
    return make_engine(tmp_path_factory.mktemp("small"), Quiet(), nets.small())


@pytest.fixture
def small_engine(built_once: Engine, tmp_path: Path) -> Engine:
    """A copy of the small network's engine."""
    shutil.copytree(built_once.path, tmp_path / "copy")
    return read_engine(tmp_path / "copy")


def load_module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def make_target(capability: str = "8.6", scheme: str = "", **options: object) -> Target:
    given = {"product": "tensorrt-rtx", "compute_capability": capability, **options}
    return Target(name="t", backend="tensorrt", scheme=scheme, batch_sizes=(1, 4), options=given)


def make_prepared(folder: Path, model: onnx.ModelProto, *, ranges: bool = True) -> Prepared:
    path = folder / "model.onnx"
    onnx.save(model, path)
    file = OnnxFile(path=path, digest=hashlib.sha256(path.read_bytes()).hexdigest(), size_bytes=path.stat().st_size)
    signature = Signature(inputs=specs(model.graph.input), outputs=specs(model.graph.output))
    shapes = tuple(shape_range(spec) for spec in signature.inputs) if ranges else ()
    return Prepared(graph=file, plan=None, qdq=file, shapes=shapes, signature=signature)


def make_engine(
    folder: Path, progress: Quiet, model: onnx.ModelProto, *, ranges: bool = True, **wanted: object
) -> Engine:
    workdir = folder / f"engine{len(list(folder.iterdir()))}"
    workdir.mkdir()
    ready = make_prepared(folder, model, ranges=ranges)
    built = TensorRT().build(ready, make_target(**wanted), workdir, progress)
    return write_engine(
        workdir,
        built,
        model="m",
        model_digest=ready.graph.digest,
        recipe="r",
        target="t",
        backend="tensorrt",
        signature=ready.signature,
    )


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
