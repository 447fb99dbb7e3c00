"""Metrics: from outputs and labels to units, and from units to one number."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from qpipe.errors import ConfigError, nearest
from qpipe.metrics.classification import macro_f1, top_k
from qpipe.metrics.compare import compare_rows, is_labelled, measure_units
from qpipe.metrics.ranking import auc, spearman
from qpipe.metrics.regression import cosine, mae, rmse
from qpipe.metrics.user import load_metric
from qpipe.plugins.metric import Metric
from qpipe.records.task import TASKS

__all__ = [
    "TASKS",
    "builtin_metrics",
    "compare_rows",
    "find_metric",
    "is_labelled",
    "measure_units",
    "metric_source_digest",
]


def builtin_metrics() -> tuple[Metric, ...]:
    """The metrics that come with the core."""
    return (top_k(1), top_k(3), top_k(5), macro_f1(), auc(), mae(), rmse(), cosine(), spearman())


def find_metric(name: str, metrics: Iterable[Metric], fn_path: Path | None = None) -> Metric:
    """The metric of that name: a registered one, or the user's `module:function` (imported now, `fn_path` first).

    Raises:
        ConfigError: there is none; the hint has the nearest name.
    """
    if ":" in name:
        return load_metric(name, fn_path)
    known = {metric.name: metric for metric in metrics}
    if name in known:
        return known[name]
    raise ConfigError(
        f"unknown metric {name!r}{nearest(name, known)}",
        hint=f"there are {', '.join(sorted(known))}, or module:function of your own",
    )


def metric_source_digest(name: str, metrics: Iterable[Metric], fn_path: Path | None = None) -> str:
    """SHA-256 of the file that defines a metric: part of the measure key. Runs none of the user's code.

    Raises:
        ConfigError: unknown name, module or function.
    """
    if ":" in name:
        from qpipe.data.functions import function_file

        return _file_digest(function_file(name, fn_path))
    measure = find_metric(name, metrics).measure
    function = measure.func if isinstance(measure, partial) else measure
    return _file_digest(Path(inspect.getfile(function)))


def _file_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
