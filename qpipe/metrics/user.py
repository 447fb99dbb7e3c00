"""Metrics of the user's own: `module:function`, found with the pipeline's folder first on the import path.

The function gets the outputs and the data columns as dicts of arrays, rows first, and returns one score per row.
It may carry `higher_is_better` (default True) and `bounds` (default unbounded) as attributes.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import ConfigError, DataError
from qpipe.metrics import weighted
from qpipe.metrics.classification import per_row
from qpipe.metrics.columns import first_output
from qpipe.plugins.metric import Metric, Rows, Units

Arrays = dict[str, NDArray[np.generic]]
Score = Callable[[Arrays, Arrays], NDArray[np.generic]]


def load_metric(name: str, folder: Path | None) -> Metric:
    """The metric `module:function`.

    Raises:
        ConfigError: there is no such module or function, or its attributes are not what they should be.
    """
    module_name, _, function_name = name.partition(":")
    score = _function(_import(module_name, folder, name), function_name, name)
    low, high = _bounds(score, name)
    return Metric(
        name=name,
        summary=(inspect.getdoc(score) or f"user metric {name}").partition("\n")[0],
        kind="score",
        measure=partial(_measure, score=score, name=name),
        aggregate=_mean,
        aggregate_weighted=_means,
        higher_is_better=bool(getattr(score, "higher_is_better", True)),
        bounds=(low, high),
        needs_label=False,
    )


def source_file(name: str, folder: Path | None) -> Path:
    """The file that defines `module:function`, found without running it.

    Raises:
        ConfigError: there is none.
    """
    module = name.partition(":")[0]
    parts = Path(*module.split("."))
    for file in (parts.with_suffix(".py"), parts / "__init__.py"):
        if folder is not None and (folder / file).is_file():
            return folder / file
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise _unknown(name, module, folder)
    return Path(spec.origin)


def file_digest(file: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal characters."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextmanager
def _first_on_path(folder: Path | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _import(module_name: str, folder: Path | None, name: str) -> ModuleType:
    wanted = source_file(name, folder)
    with _first_on_path(folder):
        importlib.invalidate_caches()
        module = importlib.import_module(module_name)
    found = Path(module.__file__ or "")
    if found.resolve() != wanted.resolve():
        raise ConfigError(
            f"metric {name}: a module '{module_name}' is already imported from {found}, not from {wanted}",
            hint="give the file another name",
        )
    return module


def _function(module: ModuleType, function_name: str, name: str) -> Score:
    found: object = getattr(module, function_name, None)
    if not callable(found):
        raise ConfigError(
            f"metric {name}: {module.__file__} has no function '{function_name}'",
            hint="a metric takes (outputs, columns) and returns one score per row",
        )
    return found


def _bounds(score: Score, name: str) -> tuple[float, float]:
    found: object = getattr(score, "bounds", (-np.inf, np.inf))
    match found:
        case (int() | float() as low, int() | float() as high) if low < high:
            return float(low), float(high)
        case _:
            raise ConfigError(f"metric {name}: bounds are {found!r}", hint="bounds = (smallest, largest)")


def _measure(rows: Rows, *, score: Score, name: str) -> Units:
    scores = np.asarray(score(dict(rows.outputs), dict(rows.columns)))
    count = len(first_output(rows))
    if scores.shape != (count,) or scores.dtype.kind not in "fiub":
        raise DataError(
            f"metric {name} returned {scores.dtype}{list(scores.shape)} for {count} rows",
            hint="it returns one number per row",
        )
    return per_row(scores.astype(np.float64))


def _mean(values: NDArray[np.float64]) -> float:
    return float(values[:, 0].mean()) if len(values) else float("nan")


def _means(values: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    return weighted.means(values[:, 0], counts)


def _unknown(name: str, module: str, folder: Path | None) -> ConfigError:
    where = f" in {folder} or" if folder else ""
    return ConfigError(
        f"metric {name}: there is no module '{module}'{where} on the import path", hint="module:function"
    )
