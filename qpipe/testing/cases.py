"""One recipe of a small network with what came of it: what the suite builds once and looks at many times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from qpipe.engines import write_engine
from qpipe.errors import TargetError
from qpipe.plugins.answers import as_record, ask_scheme
from qpipe.plugins.backend import Backend, Tensors
from qpipe.records.engine import Built, Engine, Prepared
from qpipe.records.model import Model, OnnxFile
from qpipe.records.target import Target
from qpipe.records.tensors import Signature
from qpipe.testing.progress import Silent

Batches: TypeAlias = Callable[[], Iterator[Tensors]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model, its recipe, and the engine of both."""

    recipe: str
    model: Model
    prepared: Prepared
    built: Built
    engine: Engine


def make_case(backend: Backend, target: Target, model: Model, recipe: str, calibration: Batches) -> Case:
    """Prepare a model as a run would, and build its engine, both beside it."""
    from qpipe.prepare import builtin_recipe, prepare

    folder, scheme = model.file.path.parent, ask_scheme(backend, target)
    stages = made(folder / "stages")
    try:
        prepared = prepare(model, builtin_recipe(recipe, scheme), scheme, calibration, stages, None, Silent())
    except TargetError as error:
        told = f"{error}: name what runs on integers in the scheme, or write `recipes = ('none',)` into your test class"
        raise AssertionError(told) from error
    return build_case(backend, target, model, prepared, recipe, folder / "engine")


def build_case(backend: Backend, target: Target, model: Model, prepared: Prepared, recipe: str, workdir: Path) -> Case:  # noqa: PLR0917  (one noun each)
    """Build an engine of what is prepared already."""
    answer = backend.build(prepared, target, made(workdir), Silent())
    built = as_record(answer, Built, f"backend {backend.name}: build")
    engine = write_engine(
        workdir,
        built,
        model=model.name,
        model_digest=model.digest,
        recipe=recipe,
        target=target.name,
        backend=backend.name,
        signature=prepared.signature,
    )
    return Case(recipe=recipe, model=model, prepared=prepared, built=built, engine=engine)


def float_outputs(file: OnnxFile, signature: Signature, inputs: Tensors) -> dict[str, NDArray[np.float32]]:
    """What a graph gives, by the evaluator of the `onnx` package."""
    from onnx.reference import ReferenceEvaluator

    names = [spec.name for spec in signature.outputs]
    found = ReferenceEvaluator(str(file.path)).run(names, dict(inputs))
    return {name: np.asarray(values) for name, values in zip(names, found, strict=True)}


def node_names(prepared: Prepared) -> set[str]:
    """Names by which a placement may call nodes: their own, and those of their outputs."""
    import onnx

    graphs = [onnx.load(file.path, load_external_data=False).graph for file in (prepared.graph, prepared.deployable)]
    return {name for graph in graphs for node in graph.node for name in (node.name, *node.output) if name}


def made(folder: Path) -> Path:
    """A new folder."""
    folder.mkdir()
    return folder
