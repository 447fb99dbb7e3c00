"""Metrics: from outputs and labels to units, and from units to one number."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import MappingProxyType

from qpipe.errors import ConfigError
from qpipe.metrics.classification import macro_f1, top_k
from qpipe.metrics.compare import compare_rows, is_labelled, measure_units
from qpipe.metrics.ranking import auc, spearman
from qpipe.metrics.regression import cosine, mae, rmse
from qpipe.metrics.user import file_digest, load_metric, source_file
from qpipe.plugins.metric import Metric

__all__ = [
    "TASKS",
    "builtin_metrics",
    "compare_rows",
    "find_metric",
    "is_labelled",
    "measure_units",
    "metric_source_digest",
]

TASKS: Mapping[str, str] = MappingProxyType(
    {
        "classification": "accuracy",
        "binary-classification": "auc",
        "regression": "mae",
        "similarity": "spearman",
        "sts": "spearman",
    }
)
"""The metric that each task brings."""


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
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else "there are: " + ", ".join(sorted(known))
    raise ConfigError(f"unknown metric '{name}'", hint=hint)


def metric_source_digest(name: str, metrics: Iterable[Metric], fn_path: Path | None = None) -> str:
    """SHA-256 of the file that defines a metric: part of the measure key. Runs none of the user's code.

    Raises:
        ConfigError: unknown name, module or function.
    """
    if ":" in name:
        return file_digest(source_file(name, fn_path))
    measure = find_metric(name, metrics).measure
    function = measure.func if isinstance(measure, partial) else measure
    return file_digest(Path(inspect.getfile(function)))
