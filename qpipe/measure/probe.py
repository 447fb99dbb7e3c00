"""A toolchain's engine on a few made-up rows beside the graph it was built from: whether it computes the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import EngineError
from qpipe.measure.evaluation import sqnr_db
from qpipe.measure.ort import OrtSession, cpu_options, refusal
from qpipe.plugins.backend import Tensors
from qpipe.records.engine import Prepared

Array = NDArray[np.generic]
FLOAT_DB = 60.0
QUANTIZED_DB = 30.0
"""SQNR of an engine against its graph: other fusions move a rounding, not the answer."""
_OWN_DB = 6.0
"""An engine may be that much further from the float graph than the plan's own rounding is: roundings fall otherwise."""
_FREE = 16
_PIXELS_RANK = 3
_NOTHING = 1e-6
"""Beside an output that is zero everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How well one output agrees."""

    output: str
    db: float
    """SQNR in dB; infinity for the same numbers, minus infinity where shapes differ or what is finite does."""
    shapes: str = ""
    """Both shapes, where they differ, and that they are the same where nothing else counts."""

    def __str__(self) -> str:
        if self.db == np.inf:
            return self.shapes or "the same numbers"
        if self.db > FLOAT_DB:  # float sums may differ from run to run, what is noted of an engine may not
            return f"more than {FLOAT_DB:.0f} dB"
        return self.shapes or ("not finite in the same places" if self.db == -np.inf else f"{self.db:.1f} dB")


def probe_shapes(prepared: Prepared, rows: int = 2) -> dict[str, tuple[int, ...]]:
    """A shape for each input: its fixed sizes, `rows`, and the usual size of the other free ones (16 where unknown)."""
    best = {shape.name: shape.best for shape in prepared.shapes}
    return {
        spec.name: tuple(
            dim
            if isinstance(dim, int)
            else rows
            if axis == 0
            else best[spec.name][axis]
            if spec.name in best
            else _FREE
            for axis, dim in enumerate(spec.shape)
        )
        for spec in prepared.signature.inputs
    }


def probe_inputs(prepared: Prepared, shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, Array]:
    """Made-up inputs by name, never used for ranges.

    Uniform in the plan's range of an input, else standard normal; integers are 0 or 1, those of images 0 to 255.
    """
    random = np.random.default_rng(seed)
    ranges = {spec.tensor: (spec.low, spec.high) for spec in prepared.plan.activations} if prepared.plan else {}
    feed: dict[str, Array] = {}
    for spec in prepared.signature.inputs:
        shape = tuple(shapes[spec.name])
        if spec.dtype.startswith("float"):
            low, high = ranges.get(spec.name, (0.0, 0.0))
            values = random.uniform(low, high, shape) if high > low else random.normal(size=shape)
        else:
            most = 256 if spec.dtype == "uint8" and len(shape) >= _PIXELS_RANK else 2
            values = random.integers(0, most, shape).astype(np.float64)
        feed[spec.name] = values.astype(spec.dtype)
    return feed


def outputs_as_written(path: Path, prepared: Prepared, feed: Tensors) -> dict[str, Array]:
    """Outputs of a graph that onnxruntime does not rewrite first.

    Raises:
        EngineError: onnxruntime cannot load or run it.
    """
    import onnxruntime as ort

    options = cpu_options(1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EngineError(f"it cannot load the graph: {refusal(error)[0]}") from error
    return OrtSession(session, prepared.signature).run(feed)


def beyond_rounding(
    wrong: Iterable[Agreement], prepared: Prepared, feed: Tensors, wanted: Tensors, found: Tensors
) -> list[Agreement]:
    """Outputs that are further from the float graph than the plan's own rounding explains.

    Args:
        wrong: outputs of the engine that agree too little with those of the quantized graph.
        prepared: both graphs.
        feed: the made-up batch.
        wanted: what the quantized graph answers.
        found: what the engine answers.
    """
    ideal = outputs_as_written(prepared.graph.path, prepared, feed)
    own, engine = ({one.output: one.db for one in agreements(ideal, outputs)} for outputs in (wanted, found))
    return [one for one in wrong if engine[one.output] < own[one.output] - _OWN_DB]


def agreements(wanted: Tensors, found: Tensors) -> tuple[Agreement, ...]:
    """Output by output; of those that are no floats the shapes alone count (an argmax may tip over)."""
    return tuple(_agreement(name, wanted[name], found[name]) for name in wanted)


def worst(found: Iterable[Agreement]) -> Agreement:
    """The output that agrees least."""
    return min(found, key=lambda one: one.db)


def _agreement(name: str, wanted: Array, found: Array) -> Agreement:
    if wanted.shape != found.shape:
        shapes = f"its shape is {list(found.shape)}, the graph's {list(wanted.shape)}"
        return Agreement(output=name, db=-np.inf, shapes=shapes)
    if wanted.dtype.kind != "f":
        same = np.array_equal(wanted, found)
        return Agreement(output=name, db=np.inf, shapes="" if same else "the same shape, other integers")
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return Agreement(output=name, db=-np.inf)
    a, b = a[finite], b[finite]
    if np.array_equal(a, b) or (not a.any() and np.abs(b).max() <= _NOTHING):
        return Agreement(output=name, db=np.inf)
    ratio = sqnr_db(a, b)
    return Agreement(output=name, db=0.0 if ratio is None else ratio)
