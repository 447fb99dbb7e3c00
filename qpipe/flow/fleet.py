"""Many pipelines, one after the other: what is wrong with one of them stops no other."""

from __future__ import annotations

import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

from qpipe.errors import ConfigError, Interrupted, QpipeError
from qpipe.flow.cells.claims import promoted_name
from qpipe.flow.exitcodes import BUG
from qpipe.flow.stopping import GO_ON, heed
from qpipe.records.fleet import Ended, Refusal
from qpipe.records.recipe import REFERENCE

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from qpipe.flow.options import RunOptions
    from qpipe.flow.preflight.forecast import Forecast
    from qpipe.plugins.registry import Registry
    from qpipe.records.pipeline import Pipeline
    from qpipe.records.result import RunResult


def run_fleet(
    files: Sequence[Path],
    run: Callable[[Path], RunResult],
    told: Callable[[Ended], None],
    stop: threading.Event | None = None,
    plugins: Plugins | None = None,
) -> tuple[Ended, ...]:
    """Run each file; `told` hears of each as it ends. All files are read first: mistakes are told before any work.

    Interrupted (Ctrl-C, or `stop` is set), the rest is not begun, and each file of it ends with exit code 130.
    """
    ended: dict[Path, Ended] = {}
    begun: list[Path] = []
    with suppress(Interrupted, KeyboardInterrupt):
        ended.update((file, Ended(file=file, end=why)) for file, why in look_over(files, plugins or Plugins()).items())
        for one in tuple(ended.values()):
            told(one)
        for file in files:
            if file not in ended:
                if stop is not None:
                    heed(stop)
                begun.append(file)
                ended[file] = _run(file, run)
                told(ended[file])
    return tuple(
        ended.get(file) or Ended(file=file, end=_left("finished" if file in begun else "begun")) for file in files
    )


def _left(what: str) -> Refusal:
    return Refusal(message=f"not {what}: interrupted", hint=GO_ON, code=Interrupted.code)


def plan_fleet(files: Sequence[Path], options: RunOptions) -> tuple[tuple[Path, tuple[Forecast, ...] | Refusal], ...]:
    """What a run of each file would do, or why it would do nothing. Computes and writes nothing."""
    plugins = Plugins()
    refused = look_over(files, plugins)
    return tuple((file, refused[file] if file in refused else _plan(file, options, plugins)) for file in files)


def _plan(file: Path, options: RunOptions, plugins: Plugins) -> tuple[Forecast, ...] | Refusal:
    from qpipe.flow.preflight.forecast import forecast
    from qpipe.flow.workplace import open_workplace

    try:
        return forecast(open_workplace(file, options, registry=plugins.beside(file)))
    except QpipeError as error:
        return refusal(error)


class Plugins:
    """The registries of one command, each loaded once per folder: that costs more than to read a file."""

    def __init__(self) -> None:
        self._found: dict[Path, Registry] = {}

    def beside(self, file: Path) -> Registry:
        """All plugins, with the targets of the folder of a pipeline file."""
        from qpipe.flow.workplace import open_registry

        folder = file.parent.absolute()
        if folder not in self._found:
            self._found[folder] = open_registry(folder)
        return self._found[folder]


def look_over(files: Sequence[Path], plugins: Plugins) -> dict[Path, Refusal]:
    """The files that cannot be run: a mistake in the text, a broken model file, a name that an earlier one claims."""
    claimed: dict[tuple[str, str], Path] = {}
    refused = {}
    for file in files:
        try:
            claims = _claims(_read(file, plugins.beside(file)))
            for claim in claims:
                if claimed.setdefault(claim, file) != file:
                    raise ConfigError(
                        f"{file}: promotes to {claim[0]} as {claim[1]}, and so does {claimed[claim]}",
                        hint='names of their own: promote: {model: "{model}-{target}"}, and models of other names',
                    )
        except QpipeError as error:
            refused[file] = refusal(error)
    return refused


def _read(file: Path, registry: Registry) -> Pipeline:
    from qpipe.config import read_pipeline
    from qpipe.models import read_model

    pipeline = read_pipeline(file, registry)
    for source in pipeline.models:
        if source.path is not None:
            read_model(source.path, name=source.name, origin=str(source.path))
    return pipeline


def _claims(pipeline: Pipeline) -> Iterator[tuple[str, str]]:
    """Registered names and aliases that engines of a pipeline may take."""
    spec = pipeline.promote
    for model in pipeline.models if spec is not None else ():
        for target in pipeline.targets:
            for recipe in pipeline.recipes:
                if spec is not None and recipe.name != REFERENCE and recipe.is_for(target.name):
                    yield promoted_name(spec, model.name, recipe.name, target.name), spec.alias


def _run(file: Path, run: Callable[[Path], RunResult]) -> Ended:
    try:
        return Ended(file=file, end=run(file))
    except Interrupted:
        raise
    except QpipeError as error:
        return Ended(file=file, end=refusal(error))
    except Exception as error:  # noqa: BLE001  (a bug that one model meets keeps its traceback, and stops no other)
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
        return Ended(file=file, end=Refusal(message=message, hint="this is a bug in qpipe: please report it", code=BUG))


def refusal(error: QpipeError) -> Refusal:
    """The error as the end of its pipeline."""
    return Refusal(message=error.message, hint=error.hint, code=error.code)
