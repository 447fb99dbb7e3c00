"""`init`: a pipeline file to begin with."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from qpipe.cli.options import JsonFlag, UriOption, print_json


def init(
    model: Annotated[
        str,
        typer.Argument(metavar="model", help="An .onnx file, or models:/… or runs:/… in MLflow.", show_default=False),
    ],
    *,
    out: Annotated[Path | None, typer.Option("--out", help="File to write. [default: stdout]")] = None,
    tracking_uri: UriOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Draft a pipeline file for a model: inputs, shapes, suggested targets and gates."""
    from qpipe.errors import ConfigError

    text = _draft(model, tracking_uri)
    if out is not None:
        try:
            with out.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError as error:
            raise ConfigError(f"{out} is there already", hint="choose another name; nothing was overwritten") from error
        except OSError as error:
            raise ConfigError(f"{out} cannot be written: {error.strerror}", hint="--out FILE.yaml") from error
    if as_json:
        print_json({"pipeline": text, "file": str(out) if out else None})
    else:
        typer.echo(f"wrote {out}" if out else text)


def _draft(model: str, tracking_uri: str | None) -> str:
    """The draft for a file, or for a model of MLflow, which is looked at in a folder that goes again."""
    from qpipe.config import draft_pipeline, model_name
    from qpipe.models import output_operators, read_model
    from qpipe.records.model import is_in_mlflow

    with ExitStack() as scratch:
        path = Path(model)
        if is_in_mlflow(model):
            from qpipe.tracking import fetch_model

            folder = Path(scratch.enter_context(TemporaryDirectory(prefix="qpipe-")))
            path = fetch_model(model, folder, tracking_uri=tracking_uri)
        found = read_model(path, name=model_name(model) or path.stem, origin=model)
        return draft_pipeline(found, targets=_local_targets(), operators=output_operators(path))


def _local_targets() -> tuple[str, ...]:
    """Targets whose engines can be built and run on this machine, `cpu-local` first."""
    from qpipe.errors import QpipeError
    from qpipe.flow.workplace import open_registry
    from qpipe.plugins.answers import ask_availability
    from qpipe.records.engine import Ready

    registry = open_registry()
    found = []
    for name, target in registry.targets.items():
        try:
            state = ask_availability(registry.backend(target.backend), target)
        except QpipeError:
            continue  # a target of a plugin that is not installed: `qpipe targets` says so
        if isinstance(state.build, Ready) and isinstance(state.run, Ready):
            found.append(name)
    return tuple(sorted(found, key=lambda name: (name != "cpu-local", name))[:1]) or ("cpu-local",)
