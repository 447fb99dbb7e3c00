"""What one parse of an ONNX file tells, without loading its external tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.errors import ModelError, nearest
from qpipe.models.sniff import describe_bytes
from qpipe.records.tensors import Signature

if TYPE_CHECKING:
    import onnx

DEFAULT_DOMAINS = ("", "ai.onnx")
RUNTIME_DOMAINS = ("com.microsoft", "com.microsoft.nchwc", "ai.onnx.ml", "com.ms.internal.nhwc")
"""Domains that ONNX Runtime brings kernels for beside ONNX's own."""
RUNTIME_OPERATORS = ("SimplifiedLayerNormalization",)
"""Operators that ONNX Runtime, and what exports for it, has in ONNX's own domain though ONNX lacks them.

Source: onnxruntime `core/graph/contrib_ops/contrib_defs.cc`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalTensor:
    """Where one tensor's bytes lie: a location relative to the model's folder, and how far they reach."""

    tensor: str
    location: str
    end: int
    """Offset + length in bytes; 0 where the file does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The border of the graph, its operators' opset, and the external data it points to."""

    signature: Signature
    opset: int
    external: tuple[ExternalTensor, ...]
    operators: frozenset[str]
    """Types of all nodes, those in subgraphs and functions too."""


def read_facts(path: Path) -> Facts:
    """Parse the file once per process and content (path, size, mtime).

    Raises:
        ModelError: missing, empty, truncated, not ONNX, or not a graph that qpipe can read.
    """
    stat = require_file(path)
    return _parse(path, stat[0], stat[1])


def require_file(path: Path) -> tuple[int, int]:
    """Size in bytes and mtime in nanoseconds of an existing, non-empty file."""
    if not path.exists():
        siblings = (file.name for file in path.parent.glob("*")) if path.parent.is_dir() else ()
        raise ModelError(
            f"{path}: no such model file{nearest(path.name, siblings)}", hint="give the path of an .onnx file"
        )
    if path.is_dir():
        raise ModelError(f"{path} is a folder, not an .onnx file", hint="name the .onnx file inside it")
    stat = path.stat()
    if stat.st_size == 0:
        raise ModelError(f"{path} is empty (0 bytes)", hint="export or copy the model again")
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=1024)  # of many pipelines each model is looked over before it is run
def _parse(path: Path, size: int, mtime_ns: int) -> Facts:  # noqa: ARG001  (size and mtime name the content)
    from qpipe.models.border import read_signature

    proto = _load(path)
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise ModelError(f"{path} holds no ONNX graph ({describe_bytes(path)})", hint="export the model to ONNX again")
    opset = _default_opset(path, proto)
    _check_operators(path, proto, opset)
    return Facts(
        signature=read_signature(path, proto),
        opset=opset,
        external=tuple(_external(proto)),
        operators=frozenset(node.op_type for node in _all_nodes(proto)),
    )


def _load(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types

    try:
        return onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise ModelError(
            f"{path} is not a whole ONNX file: {describe_bytes(path)}",
            hint="qpipe takes an .onnx file; export or copy it again",
        ) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _default_opset(path: Path, proto: onnx.ModelProto) -> int:
    import onnx

    versions = [entry.version for entry in proto.opset_import if entry.domain in DEFAULT_DOMAINS]
    if not versions:
        ops = ", ".join(sorted({node.op_type for node in proto.graph.node}))
        raise ModelError(
            f"{path} names no opset of the default ONNX domain, whose operators alone can be quantized: it has {ops}",
            hint="keep a float model of trees alone; export another one with opset 13 or newer",
        )
    newest = onnx.defs.onnx_opset_version()
    if versions[0] > newest:
        raise ModelError(
            f"{path} uses opset {versions[0]}; the installed onnx {onnx.__version__} knows up to {newest}",
            hint=f"export with opset {newest} or older, or upgrade onnx and onnxruntime",
        )
    return int(versions[0])


def _check_operators(path: Path, proto: onnx.ModelProto, opset: int) -> None:
    import onnx

    own = {(function.domain, function.name) for function in proto.functions}
    custom: set[str] = set()
    for node in _inside(proto.graph.node):
        if node.domain in DEFAULT_DOMAINS:
            known_here = node.op_type in RUNTIME_OPERATORS or ("", node.op_type) in own
            if not known_here and not onnx.defs.has(node.op_type, max_inclusive_version=opset):
                known = {s.name for s in onnx.defs.get_all_schemas()}
                raise ModelError(
                    f"{path}: node {node.name or '(unnamed)'!r} has the operator {node.op_type!r}, which ONNX opset "
                    f"{opset} lacks{nearest(node.op_type, known)}",
                    hint="export with another opset, or rewrite that part of the model",
                )
        elif node.domain not in RUNTIME_DOMAINS and (node.domain, node.op_type) not in own:
            custom.add(f"{node.domain}::{node.op_type}")
    if custom:
        raise ModelError(
            f"{path} needs custom operators: {', '.join(sorted(custom))}",
            hint="no runtime here has kernels for them; rewrite those parts with standard ONNX operators",
        )


def _inside(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for inner in _subgraphs(attribute):
                yield from _inside(inner.node)


def _all_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _inside(proto.graph.node)
    for function in proto.functions:
        yield from _inside(function.node)


def _subgraphs(attribute: onnx.AttributeProto) -> tuple[onnx.GraphProto, ...]:
    return (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _attribute_tensors(node)


def _attribute_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for inner in _subgraphs(attribute):
            yield from _tensors(inner)


def _external(proto: onnx.ModelProto) -> Iterator[ExternalTensor]:
    import onnx

    functions = (
        tensor for function in proto.functions for node in function.node for tensor in _attribute_tensors(node)
    )
    for tensor in (*_tensors(proto.graph), *functions):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            end = int(entries.get("offset", 0)) + int(entries.get("length", 0))
            yield ExternalTensor(tensor=tensor.name, location=entries.get("location", ""), end=end)
