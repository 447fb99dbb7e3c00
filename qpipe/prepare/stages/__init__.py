"""The built-in stages, registered like those of any plugin. Light: each stage imports its work when it runs."""

from __future__ import annotations

from qpipe.plugins.stage import StageType
from qpipe.prepare.stages.borrowed import DYNAMIC, FP16, QUANTIZE


def builtin_stages() -> tuple[StageType[object], ...]:
    """All stages that come with qpipe."""
    return (QUANTIZE, DYNAMIC, FP16)
