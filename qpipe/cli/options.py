"""Options that several commands share, and the two ways to print a result."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON object on stdout; everything else on stderr.")]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="Folder or URL of the store. [default: $QPIPE_STORE, else .qpipe]")
]
UriOption = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="MLflow. [default: $MLFLOW_TRACKING_URI, else sqlite in this folder]"),
]
PipelineFiles = Annotated[
    list[Path], typer.Argument(metavar="pipeline", help="Pipeline files (YAML): one, or many.", show_default=False)
]


def print_json(document: Mapping[str, object]) -> None:
    """One JSON object on stdout; NaN and infinity are refused, they are not JSON."""
    sys.stdout.write(json.dumps(document, allow_nan=False, indent=1 if sys.stdout.isatty() else None) + "\n")


LOG_COLUMNS = 160
"""Where no terminal says how wide it is: in rich's 80 the tables and sentences of a CI log are broken."""

NARROWEST_COLUMNS = 40
"""A table that has less room loses signs; the terminal breaks its lines instead."""


def results() -> Console:
    """stdout, as wide as its terminal (or `COLUMNS`) says and a table needs, else as a log may be."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        return Console(width=LOG_COLUMNS)
    return console if console.width >= NARROWEST_COLUMNS else Console(width=NARROWEST_COLUMNS)
