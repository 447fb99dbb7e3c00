"""The Python API: `qpipe.run`, `qpipe.step`, `qpipe.load`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpipe.flow.options import RunOptions
    from qpipe.flow.workplace import Workplace
    from qpipe.plugins.backend import Session
    from qpipe.plugins.registry import Registry
    from qpipe.records.pipeline import Pipeline
    from qpipe.records.result import RunResult


def run(pipeline: str | Path, options: RunOptions | None = None) -> RunResult:
    """Run a pipeline file to its end: plan, execute, gate, log, promote.

    A failed gate is a result (`RunResult.exit_code` is 3), not an exception. Warnings, and what a run waits for, are
    logged by the logger `qpipe`; jobs that are done at level INFO.

    Raises:
        QpipeError: what can be found before work: a bad file, model, data, target, an unreachable MLflow.
    """
    from qpipe.allowance import check_allowance
    from qpipe.flow.options import RunOptions
    from qpipe.flow.workplace import open_workplace

    check_allowance()
    chosen = options or RunOptions()
    return _conduct(open_workplace(Path(pipeline), chosen), chosen)


def step(
    *,
    model_uri: str,
    data: Mapping[str, object],
    targets: Sequence[str] = ("cpu-local",),
    recipes: Sequence[str] = ("int8",),
    gates: Mapping[str, Mapping[str, object]],
    task: str | None = None,
    name: str = "model",
    promote: Mapping[str, str] | None = None,
    options: RunOptions | None = None,
) -> RunResult:
    """Quantize, measure, gate and promote a model as one step of the caller's own MLflow run.

    The run is nested in the active MLflow run, or in that of `MLFLOW_RUN_ID`. Arguments are the sections of a
    pipeline file; relative paths start at the working folder. `model_uri` is `models:/…`, `runs:/…` or a path.

    Raises:
        QpipeError: as `run`.
    """
    from qpipe.allowance import check_allowance
    from qpipe.flow.options import RunOptions
    from qpipe.flow.workplace import open_pipeline, open_registry

    check_allowance()
    source = {"uri": model_uri} if ":/" in model_uri else {"path": model_uri}
    document: dict[str, object] = {
        "name": name,
        "model": {"name": name, **source},
        "task": task,
        "data": data,
        "targets": list(targets),
        "recipes": list(recipes),
        "gates": gates,
        "promote": promote,
    }
    chosen = options or RunOptions()
    registry = open_registry(Path.cwd())
    given = {key: value for key, value in document.items() if value is not None}
    return _conduct(open_pipeline(_read(given, registry), registry, chosen), chosen)


def _conduct(workplace: Workplace, options: RunOptions) -> RunResult:
    """A run whose warnings are logged (logger `qpipe`), for a script shows nothing of its own."""
    from qpipe.execute.children.watch import Log
    from qpipe.flow.conduct import conduct

    watch = Log()
    result = conduct(workplace, options, watch)
    for warning in result.warnings:
        watch.say(warning)
    return result


def _read(document: Mapping[str, object], registry: Registry) -> Pipeline:
    """The pipeline of a document that stands in no file: messages name its keys all the same.

    Raises:
        ConfigError: as `read_pipeline`.
    """
    import json
    from tempfile import TemporaryDirectory

    from qpipe.config import read_pipeline
    from qpipe.errors import ConfigError

    with TemporaryDirectory() as scratch:
        written = Path(scratch) / "step.yaml"
        written.write_text(json.dumps(document, default=_plain))  # JSON is YAML: messages name keys, as for a file
        try:
            return read_pipeline(written, registry, folder=Path.cwd())
        except ConfigError as error:
            message, hint = (text.replace(f"{written}:1: ", "qpipe.step: ") for text in (error.message, error.hint))
            raise ConfigError(message, hint=hint) from error


def _plain(value: object) -> object:
    """Paths and NumPy's numbers, arrays of a few too, as a file would hold them."""
    import numpy as np

    from qpipe.errors import ConfigError

    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise ConfigError(
        f"qpipe.step: {value!r} is {type(value).__name__}, which no pipeline file can hold",
        hint="text, numbers, paths, lists and mappings; rows come from an .npz file or fn: 'module:function'",
    )


def load(engine_dir: str | Path) -> Session:
    """Open an engine folder on this machine: digests and requirements are checked first.

    Raises:
        EngineError: the folder was changed, or this machine is not one that the engine requires.
    """
    from qpipe.engines import check_requirements, read_engine
    from qpipe.flow.workplace import open_registry

    engine = read_engine(Path(engine_dir))
    check_requirements(engine)
    registry = open_registry()
    return registry.backend(engine.backend).open(engine, registry.target(engine.target))
