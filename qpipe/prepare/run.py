"""The conductor: runs the stages of a recipe one after the other and hands over what a toolchain builds from."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from qpipe.errors import ConfigError, nearest
from qpipe.plugins.backend import Progress, Tensors
from qpipe.plugins.stage import Draft, StageType
from qpipe.prepare.onnxfile import describe
from qpipe.prepare.shapes import shape_ranges
from qpipe.prepare.stages import builtin_stages
from qpipe.records.codec import decode, encode
from qpipe.records.engine import Prepared
from qpipe.records.model import Model, OnnxFile
from qpipe.records.quantization import STEM, Override
from qpipe.records.recipe import Recipe, StageSpec
from qpipe.records.remark import Remark
from qpipe.records.scheme import Scheme

Cache = Callable[[str, Callable[[Path], None]], Path]
"""`cache(key, make)`: a folder made once per key; `make` fills the empty folder that it is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeContext:
    """What one stage may ask for."""

    scheme: Scheme
    workdir: Path
    progress: Progress
    source: Callable[[], Iterator[Tensors]]
    calibration_digest: str
    cache: Cache | None
    code: str = ""
    """The stage's name and its plugin's code; empty for the core's own stages, whose keys hold a version."""

    def calibration(self) -> Iterator[Tensors]:
        """Batches of model inputs, preprocessed; a fresh pass at each call."""
        return self.source()

    def cached(self, key: str, make: Callable[[Path], None]) -> Path:
        """A folder made once per key, calibration data and plugin's code; without a cache, in the work folder."""
        digest = hashlib.sha256("\0".join(filter(None, (key, self.calibration_digest, self.code))).encode()).hexdigest()
        if self.cache is not None and self.calibration_digest:
            return self.cache(digest, make)
        folder = self.workdir / digest[:16]
        if not folder.exists():
            made = self.workdir / f"{digest[:16]}.part"
            made.mkdir(parents=True)
            make(made)
            made.rename(folder)
        return folder

    def onnx_file(self, path: Path) -> OnnxFile:
        """The record of a graph that the stage has written."""
        return describe(path)


def prepare(  # noqa: PLR0917 - each is one noun of the recipe, in the order of the data flow
    model: Model,
    recipe: Recipe,
    scheme: Scheme,
    calibration: Callable[[], Iterator[Tensors]],
    workdir: Path,
    cache: Cache | None,
    progress: Progress,
    *,
    calibration_digest: str = "",
    rows: int = 1,
    stages: Sequence[StageType[object]] | None = None,
    code_of: Callable[[str], str] = lambda _stage: "",
) -> Prepared:
    """Run the recipe's stages on the model for one scheme.

    `calibration` gives a fresh pass over batches of model inputs at each call; `calibration_digest` names those rows,
    so that statistics are shared through `cache`; `rows` are those that an engine has to serve at a time. `stages`
    defaults to the built-in ones; `code_of` names the code of a plugin's stage (`Registry.code_of_stage`).

    Raises:
        ConfigError: the recipe names a stage or a parameter that does not exist.
        QuantizationError: the graph cannot be quantized as asked; the message names the node.
    """
    draft = run_stages(
        model,
        recipe,
        scheme,
        calibration,
        workdir,
        cache,
        progress,
        calibration_digest=calibration_digest,
        stages=stages,
        code_of=code_of,
    )
    draft = _rendered(draft, workdir, progress)
    graph, qdq = _owned(draft.graph, model, workdir), draft.qdq and _owned(draft.qdq, model, workdir)
    draft = replace(draft, graph=graph, qdq=qdq, statistics=None)
    _drop_replaced(draft, workdir)
    return Prepared(
        graph=graph,
        plan=draft.plan,
        qdq=qdq,
        shapes=shape_ranges(model.signature, calibration, rows),
        signature=model.signature,
        remarks=draft.remarks,
    )


def run_stages(  # noqa: PLR0917 - as `prepare`
    model: Model,
    recipe: Recipe,
    scheme: Scheme,
    calibration: Callable[[], Iterator[Tensors]],
    workdir: Path,
    cache: Cache | None,
    progress: Progress,
    *,
    calibration_digest: str = "",
    stages: Sequence[StageType[object]] | None = None,
    code_of: Callable[[str], str] = lambda _stage: "",
) -> Draft:
    """The draft after the recipe's stages, before anything is rendered; as `prepare` otherwise."""
    known = {stage.name: stage for stage in (builtin_stages() if stages is None else stages)}
    draft = Draft(graph=model.file)
    for number, spec in enumerate(recipe.stages):
        stage = _find(known, spec, recipe)
        folder = workdir / f"{number}-{spec.name}"
        folder.mkdir(parents=True)
        progress.step(spec.name)
        context = RecipeContext(
            scheme=scheme,
            workdir=folder,
            progress=progress,
            source=calibration,
            calibration_digest=calibration_digest,
            cache=cache,
            code=f"{spec.name}: {code}" if (code := code_of(spec.name)) else "",
        )
        params = read_params(stage, spec)
        told = _names_without_nodes(draft, spec.name, params)
        draft = stage.apply(draft, params, context)
        draft = replace(draft, remarks=(*draft.remarks, *told))
        _drop_replaced(draft, workdir)
    return draft


def _names_without_nodes(draft: Draft, stage: str, params: object) -> tuple[Remark, ...]:
    """Exceptions of a recipe that change nothing: no node that the stage gets has such a name."""
    overrides: tuple[Override, ...] = getattr(params, "overrides", ())
    given = (*getattr(params, "keep_float", ()), *(override.match for override in overrides))
    patterns = [one for one in dict.fromkeys(given) if one != STEM]  # which is no name: some models have none
    if not patterns:
        return ()
    from qpipe.quant.graph import open_graph
    from qpipe.quant.options import matches

    nodes = tuple(open_graph(draft.graph.path).graph.all_nodes())
    names = [node.name for node in nodes if node.name]
    return tuple(
        Remark(kind="no-node", subject=one, message=f"no node that `{stage}` gets has this name{nearest(one, names)}")
        for one in patterns
        if not any(matches(one, node) for node in nodes)
    )


def _owned(graph: OnnxFile, model: Model, workdir: Path) -> OnnxFile:
    """The graph, copied into the work folder where it lies in a folder that recipes share."""
    if graph.path == model.file.path or graph.path.is_relative_to(workdir):
        return graph
    from qpipe.models.digest import external_files

    folder = workdir / f"shared-{graph.digest[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    for file in (graph.path, *external_files(graph.path)):
        shutil.copyfile(file, folder / file.name)
    return replace(graph, path=folder / graph.path.name)


def _drop_replaced(draft: Draft, workdir: Path) -> None:
    """Remove the folders of stages whose graphs others have replaced: nobody reads them, and each is a whole model."""
    files = (draft.graph.path, None if draft.qdq is None else draft.qdq.path, draft.statistics)
    kept = [file for file in files if file is not None]
    for folder in workdir.glob("*"):
        if not any(path.is_relative_to(folder) for path in kept):
            shutil.rmtree(folder)


def _rendered(draft: Draft, workdir: Path, progress: Progress) -> Draft:
    """A draft with a static plan gets its Q/DQ graph, after every correction."""
    if draft.plan is None or draft.qdq is not None or draft.plan.mode != "static":
        return draft
    from qpipe.quant.graph import open_graph, save_graph
    from qpipe.quant.rendering.render import render

    progress.step("render")
    path = workdir / "qdq" / "model.onnx"
    path.parent.mkdir(parents=True)
    save_graph(render(open_graph(draft.graph.path), draft.plan), path)
    return replace(draft, qdq=describe(path))


def _find(known: dict[str, StageType[object]], spec: StageSpec, recipe: Recipe) -> StageType[object]:
    if spec.name not in known:
        raise ConfigError(
            f"recipe {recipe.name!r} names a stage {spec.name!r} that does not exist",
            hint=f"stages: {', '.join(sorted(known))}",
        )
    return known[spec.name]


def read_params(stage: StageType[object], spec: StageSpec) -> object:
    """The parameters of a stage as its own dataclass.

    Raises:
        ConfigError: a key that the stage does not have, or a value of the wrong type.
    """
    names = [field.name for field in fields(stage.params)]  # type: ignore[arg-type]  # params is a dataclass by contract
    unknown = sorted(set(spec.params) - set(names))
    if unknown:
        raise ConfigError(
            f"stage {spec.name!r} has no parameter {unknown[0]!r}", hint=f"parameters: {', '.join(names) or 'none'}"
        )
    if not spec.params:
        return stage.params()
    try:
        return decode(stage.params, encode(spec.params))
    except ValueError as error:
        raise ConfigError(f"stage {spec.name!r}, {str(error).removeprefix('.')}") from error
