"""A first pipeline file for a model, as `qpipe init` prints it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from qpipe.config.sources import clean_name
from qpipe.records.model import Model, is_in_mlflow
from qpipe.records.tensors import Signature, TensorSpec

NO_OPERATORS: Mapping[str, str] = MappingProxyType({})
RANK, PAIR, LONG = 2, 2, 64
"""Axes of [rows, classes] and [rows, length]; classes of a yes or no; numbers from which an output is an embedding."""
SMALL = 1_000_000
"""Bytes below which a file need not shrink."""


def draft_pipeline(
    model: Model, *, targets: Sequence[str] = ("cpu-local",), operators: Mapping[str, str] = NO_OPERATORS
) -> str:
    """The text of a pipeline file; what only the user can know is marked `TODO` and has a sensible guess.

    Args:
        model: what is to be quantized.
        targets: names that the draft lists.
        operators: what computes each output (`Sigmoid`, …), where that is known.
    """
    judged, name = _judged(model.signature), clean_name(model.name) or "model"
    task = _guessed_task(model.signature, judged, operators.get(judged.name, ""))
    return "\n".join(
        (
            f"# A draft for {model.origin or model.file.path}. TODO marks what only you know.",
            f"name: {name}",
            f"model: {_source(model)}  # opset {model.opset}, {model.file.size_bytes / 1e6:.1f} MB",
            *(f"#   input  {spec}" for spec in model.signature.inputs),
            *(f"#   output {spec}" for spec in model.signature.outputs),
            _task(task),
            "data:",
            f"  inputs: {_mapping(model.signature)}  # column of the .npz files: model input",
            "  label: label  # TODO the column with the right answers; leave the line out where there are none",
            *_output(model.signature, judged),
            "  calibration: {npz: calibration.npz}  # TODO rows that set the ranges; samples: 256 draws so many",
            "  gate: {npz: gate.npz}  # TODO rows of no other use; slices: [COLUMN] judges each slice",
            *_preprocess(model.signature),
            *_trim(model.signature),
            f"targets: [{', '.join(targets)}]  # `qpipe targets` lists all",
            f"recipes: [{'dynamic' if _is_text(model.signature) else 'int8'}]  # built in: none, int8, dynamic, fp16",
            "gates:",
            f"  quality: {{margin: 0.01, confidence: 0.95}}  # {_margin(task)}",
            "  finite: {}",
            _size(model),
            "  speedup: {at_least: 1.1, required: false}  # reported; `required: true` holds back what is not faster",
            'promote: {model: "{model}-{target}", alias: champion}',
            f"tracking: {{uri: null, experiment: {name}}}  # null: MLFLOW_TRACKING_URI, else sqlite here",
            "",
        )
    )


def _source(model: Model) -> str:
    if is_in_mlflow(model.origin):
        return f"{{uri: {json.dumps(model.origin)}}}"
    return f"{{path: {json.dumps(str(Path(model.origin or model.file.path)))}}}"


def _judged(signature: Signature) -> TensorSpec:
    """The output that most likely holds what labels are compared with: scores of classes, if there are any."""
    return next((spec for spec in signature.outputs if _has_scores(spec)), signature.outputs[0])


def _has_scores(spec: TensorSpec) -> bool:
    last = spec.shape[-1] if spec.shape else None
    named = _is_named_scores(spec) or last == PAIR
    return spec.dtype.startswith("float") and len(spec.shape) == RANK and last != 1 and named


def _is_named_scores(spec: TensorSpec) -> bool:
    return any(word in spec.name.lower() for word in ("logit", "prob", "score", "class"))


def _task(task: str | None) -> str:
    """`task: …`, or `metric: …` of the user's own where no task has one for such an output."""
    if task is None:
        return 'metric: {fn: "my_scores:score"}  # TODO my_scores.py: def score(outputs, columns), a number per row'
    return f"task: {task}  # TODO classification, binary-classification, regression, similarity; or metric: …"


def _size(model: Model) -> str:
    """Of a small file much is graph, which no recipe makes smaller."""
    if model.file.size_bytes >= SMALL:
        return "  size: {at_most_ratio: 0.6}"
    return "  size: {at_most_ratio: 0.6, required: false}  # reported: much of a small file is graph"


def _margin(task: str | None) -> str:
    worse = "at most this much worse than the float model"
    return f"TODO {worse}, in the label's unit (MAE)" if task == "regression" else worse


def _guessed_task(signature: Signature, judged: TensorSpec, operator: str) -> str | None:
    """A task for such an output; None where none has a metric for it: boxes, maps, tokens, several yes or no."""
    if not judged.shape or not judged.dtype.startswith("float") or _is_detection(signature):
        return None
    if len(judged.shape) == 1 or (len(judged.shape) == RANK and judged.shape[-1] == 1):
        return "binary-classification" if operator == "Sigmoid" else "regression"
    if operator == "LpNormalization" or (_is_text(signature) and _is_long(judged) and not _is_named_scores(judged)):
        return "similarity"
    return "classification" if len(judged.shape) == RANK and operator != "Sigmoid" else None


def _is_detection(signature: Signature) -> bool:
    return any("box" in spec.name.lower() for spec in signature.outputs)


def _is_long(spec: TensorSpec) -> bool:
    """An embedding rather than scores of a few classes."""
    return len(spec.shape) > RANK or (bool(spec.shape) and isinstance(spec.shape[-1], int) and spec.shape[-1] >= LONG)


def _is_text(signature: Signature) -> bool:
    return all(spec.dtype.startswith("int") and len(spec.shape) == RANK for spec in signature.inputs)


def _output(signature: Signature, judged: TensorSpec) -> tuple[str, ...]:
    if len(signature.outputs) == 1:
        return ()
    return (f"  output: {json.dumps(judged.name)}  # TODO the output that is compared with the labels",)


def _mapping(signature: Signature) -> str:
    return "{" + ", ".join(f"{json.dumps(spec.name)}: {json.dumps(spec.name)}" for spec in signature.inputs) + "}"


def _preprocess(signature: Signature) -> tuple[str, ...]:
    images = [spec for spec in signature.inputs if _is_image(spec)]
    if not images:
        return ()
    lines = (f"#   {json.dumps(spec.name)}: {{scale: 0.00392157, mean: [0.0], std: [1.0]}}" for spec in images)
    return ("#  preprocess:  # TODO for columns kept as uint8: (x · scale − mean) / std", *lines)


def _trim(signature: Signature) -> tuple[str, ...]:
    masks = [spec.name for spec in signature.inputs if "mask" in spec.name]
    return (f"  trim: {json.dumps(masks[0])}  # cut each batch to its longest row",) if masks else ()


def _is_image(spec: TensorSpec) -> bool:
    return spec.dtype.startswith("float") and len(spec.shape) == 4
