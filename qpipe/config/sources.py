"""Where the models of a pipeline come from, and what they are called."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from qpipe.config.document import KeyPath
from qpipe.config.paths import resolve_path
from qpipe.config.problems import Problem
from qpipe.config.text import ModelText, PipelineText
from qpipe.errors import QpipeError
from qpipe.records.model import is_in_mlflow
from qpipe.records.pipeline import ModelSource


def read_sources(text: PipelineText, folder: Path, problems: list[Problem]) -> tuple[ModelSource, ...]:
    """One source for `model`, several for `models`; names are unique."""
    if (text.model is None) == (text.models is None):
        what = "neither model nor models" if text.model is None else "both model and models"
        problems.append(Problem(at=(), message=f"the file names {what}", hint="model: {path: FILE.onnx}"))
        return ()
    if text.model is not None:
        return (_source(text.model, ("model",), text.name, folder, problems),)
    sources = tuple(
        _source(model, ("models", number), f"{text.name}-{number + 1}", folder, problems)
        for number, model in enumerate(text.models or ())
    )
    names = [source.name for source in sources]
    for number, name in enumerate(names):
        if name in names[:number]:
            message = f"two models are called {name!r}"
            problems.append(Problem(at=("models", number), message=message, hint="give them names: {name: …, path: …}"))
    return sources


def _source(text: ModelText, at: KeyPath, fallback: str, folder: Path, problems: list[Problem]) -> ModelSource:
    if (text.path is None) == (text.uri is None):
        what = "neither path nor uri" if text.path is None else "both path and uri"
        problems.append(
            Problem(at=at, message=f"the model names {what}", hint='{path: FILE.onnx}, or {uri: "models:/NAME@ALIAS"}')
        )
    path = None
    try:
        path = None if text.path is None else resolve_path(text.path, folder)
    except QpipeError as error:
        problems.append(Problem.of((*at, "path"), error))
    if text.path is not None and is_in_mlflow(text.path):
        problems.append(Problem(at=(*at, "path"), message=f"{text.path!r} is no path", hint=f'uri: "{text.path}"'))
    return ModelSource(name=text.name or model_name(text.path or text.uri or "") or fallback, path=path, uri=text.uri)


def model_name(place: str) -> str:
    """The stem of a file, or the registered name in an MLflow URI; empty where there is none."""
    if not is_in_mlflow(place):
        return clean_name(PurePosixPath(place).stem)
    found = re.match(r"models:/(?!m-)([^/@]+)[/@]", place)
    return clean_name(found[1]) if found else ""


def clean_name(name: str) -> str:
    """The name with every other character than letters, digits, `.`, `_` and `-` as `-`; it may be empty."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")
