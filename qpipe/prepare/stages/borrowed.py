"""Stages that borrow onnxruntime's own tools: the first step towards a quantizer of our own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qpipe.plugins.stage import Draft, StageContext, StageType


@dataclass(frozen=True, slots=True, kw_only=True)
class NoParams:
    """A stage without parameters."""


def _dynamic(draft: Draft, _: object, context: StageContext) -> Draft:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = context.workdir / "model.onnx"
    quantize_dynamic(str(draft.graph.path), str(path), per_channel=True, weight_type=QuantType.QInt8)
    return Draft(graph=draft.graph, qdq=context.onnx_file(path))


def _fp16(draft: Draft, _: object, context: StageContext) -> Draft:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    path: Path = context.workdir / "model.onnx"
    onnx.save(convert_float_to_float16(onnx.load(draft.graph.path), keep_io_types=True), path)
    return Draft(graph=context.onnx_file(path))


DYNAMIC: StageType[object] = StageType(name="dynamic", summary="dynamic INT8", params=NoParams, apply=_dynamic)
FP16: StageType[object] = StageType(name="fp16", summary="float16 graph", params=NoParams, apply=_fp16)
