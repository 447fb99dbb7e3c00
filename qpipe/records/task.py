"""Tasks, and the metric that each brings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TASKS: Mapping[str, str] = MappingProxyType(
    {
        "classification": "accuracy",
        "binary-classification": "auc",
        "regression": "mae",
        "similarity": "spearman",
        "sts": "spearman",
    }
)
"""Task → name of the metric that its gates judge by unless the pipeline says otherwise."""
