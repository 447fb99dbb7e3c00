"""Everything that a run needs, opened and checked before any work."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.errors import ConfigError, nearest
from qpipe.plugins.hookspecs import hookimpl
from qpipe.records.cell import Cell
from qpipe.records.model import Model
from qpipe.records.pipeline import ModelSource, Pipeline
from qpipe.records.target import Target
from qpipe.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qpipe.execute.children.nursery import Nursery
    from qpipe.execute.executor import Executor
    from qpipe.flow.options import RunOptions
    from qpipe.planning.offers import Offer
    from qpipe.plugins.registry import Registry


OWN = "targets/"
"""How the names of plugins begin that are a target file beside the pipeline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """One pipeline, ready to be planned or run."""

    pipeline: Pipeline
    registry: Registry
    store: Store
    models: tuple[Model, ...]
    cells: tuple[Cell, ...]
    executor: Executor
    offers: Mapping[str, Offer]
    """What the machines that do the work offer, by target name."""
    nursery: Nursery
    """Where children of this machine come from while it is open."""


class FirstPartyTargets:
    """The target files of the core, registered like those of any plugin."""

    __name__ = "first-party targets"

    @hookimpl
    def qpipe_targets(self) -> Iterable[Target]:
        """Targets from the core's `targets/*.yaml`."""
        from qpipe.config import first_party_targets

        return first_party_targets()


class OwnTarget:
    """One of the user's own `targets/*.yaml` beside a pipeline: a broken file takes no other one with it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.__name__ = f"{OWN}{file.name}"

    @hookimpl
    def qpipe_targets(self) -> Iterable[Target]:
        """The target of that file."""
        from qpipe.config import read_target

        return (read_target(self._file, owner=str(self._file)),)


def open_registry(beside: Path | None = None) -> Registry:
    """All plugins, with the targets of the core and of the folder beside a pipeline."""
    from qpipe.config import target_files
    from qpipe.plugins.loader import load_plugins

    own = target_files(beside / "targets") if beside else ()
    return load_plugins((FirstPartyTargets(), *map(OwnTarget, own)))


def open_store(root: str | None = None) -> Store:
    """The store: the given root, else QPIPE_STORE, else `.qpipe` in the working folder."""
    return Store(root or os.environ.get("QPIPE_STORE") or Path.cwd() / ".qpipe")


def open_workplace(
    path: Path, options: RunOptions, nursery: Nursery | None = None, registry: Registry | None = None
) -> Workplace:
    """Read a pipeline, open its models, and expand it into cells. Nothing is computed and nothing is written.

    `nursery`: where children of this machine come from; one that is opened before loads what they need meanwhile.
    `registry`: the plugins beside the file, where they are loaded already.

    Raises:
        QpipeError: with code 2 and file, line and key, for everything that can be found before work.
    """
    from qpipe.config import read_pipeline

    registry = registry or open_registry(path.parent.absolute())
    pipeline = _narrowed(read_pipeline(path, registry), options)
    return open_pipeline(pipeline, registry, options, nursery)


def open_pipeline(
    pipeline: Pipeline, registry: Registry, options: RunOptions, nursery: Nursery | None = None
) -> Workplace:
    """The same for a pipeline that is already read (or was never a file)."""
    from qpipe.data import sealed
    from qpipe.execute.children.nursery import Nursery
    from qpipe.flow.executors import open_executor
    from qpipe.planning import expand

    nursery = nursery or Nursery()
    pipeline = replace(pipeline, data=sealed(pipeline.data))
    store = open_store(options.store or pipeline.store)
    executor = open_executor(options, registry, store, nursery)
    models = tuple(open_model(source, store, tracking_uri=options.uri(pipeline)) for source in pipeline.models)
    offers = executor.survey(pipeline.targets)
    cells = expand(pipeline, models, registry, profile=options.profile, offers=offers)
    return Workplace(
        pipeline=pipeline,
        registry=registry,
        store=store,
        models=models,
        cells=cells,
        executor=executor,
        offers=offers,
        nursery=nursery,
    )


def open_model(source: ModelSource, store: Store, *, tracking_uri: str | None) -> Model:
    """A model from its file, or fetched from MLflow into the store."""
    from qpipe.models import read_model

    if source.path is not None:
        return read_model(source.path, name=source.name, origin=str(source.path))
    if source.uri is None:
        raise ConfigError(f"model {source.name} names neither path nor uri", hint="model: {path: FILE.onnx}")
    from qpipe.tracking import fetch_model

    folder = store.root / "models"
    fetched = fetch_model(source.uri, folder, tracking_uri=tracking_uri)
    return read_model(fetched, name=source.name, origin=source.uri)


def _narrowed(pipeline: Pipeline, options: RunOptions) -> Pipeline:
    """The pipeline with only the targets and recipes that the command line asks for."""
    targets = _chosen("--target", options.targets, tuple(target.name for target in pipeline.targets))
    recipes = _chosen("--recipe", options.recipes, tuple(recipe.name for recipe in pipeline.recipes))
    return replace(
        pipeline,
        targets=tuple(target for target in pipeline.targets if target.name in targets),
        recipes=tuple(recipe for recipe in pipeline.recipes if recipe.name in recipes),
    )


def _chosen(option: str, asked: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    for name in asked:
        if name not in known:
            raise ConfigError(f"{option} {name}: the pipeline has no such name", hint=nearest(name, known))
    return asked or known
