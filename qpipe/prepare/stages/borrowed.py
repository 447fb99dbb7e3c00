"""Stages that borrow onnxruntime's own tools: the first step towards a quantizer of our own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qpipe.plugins.backend import Tensors
from qpipe.plugins.stage import Draft, StageContext, StageType


@dataclass(frozen=True, slots=True, kw_only=True)
class NoParams:
    """A stage without parameters."""


class _Reader:
    def __init__(self, batches: Iterator[Tensors]) -> None:
        self.batches = batches

    def get_next(self) -> dict[str, object] | None:
        batch = next(self.batches, None)
        return None if batch is None else dict(batch)


def _quantize(draft: Draft, _: object, context: StageContext) -> Draft:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = context.workdir / "model.onnx"
    before = context.workdir / "before.onnx"
    quant_pre_process(str(draft.graph.path), str(before), skip_symbolic_shape=True)
    quantize_static(
        str(before),
        str(path),
        _Reader(context.calibration()),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8 if context.scheme.activation == "uint8" else QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=context.scheme.per_channel,
        extra_options={
            "ActivationSymmetric": context.scheme.activation_symmetric,
            "QuantizeBias": context.scheme.quantize_bias,
        },
    )
    return Draft(graph=draft.graph, qdq=context.onnx_file(path))


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


QUANTIZE: StageType[object] = StageType(
    name="quantize", summary="static INT8", params=NoParams, apply=_quantize, needs_calibration=True
)
DYNAMIC: StageType[object] = StageType(name="dynamic", summary="dynamic INT8", params=NoParams, apply=_dynamic)
FP16: StageType[object] = StageType(name="fp16", summary="float16 graph", params=NoParams, apply=_fp16)
