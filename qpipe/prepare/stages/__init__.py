"""The built-in stages, registered like those of any plugin. Light: each stage imports its work when it runs."""

from __future__ import annotations

from qpipe.plugins.stage import StageType
from qpipe.prepare.stages.calibrate import CALIBRATE
from qpipe.prepare.stages.cast import BF16, FP16
from qpipe.prepare.stages.dynamic import DYNAMIC
from qpipe.prepare.stages.equalize import EQUALIZE
from qpipe.prepare.stages.fold import FOLD
from qpipe.prepare.stages.quantize import CORRECT_BIAS, QUANTIZE
from qpipe.prepare.stages.smooth import SMOOTH
from qpipe.prepare.stages.weight_only import WEIGHT_ONLY


def builtin_stages() -> tuple[StageType[object], ...]:
    """All stages that come with qpipe."""
    return (FOLD, EQUALIZE, CALIBRATE, SMOOTH, QUANTIZE, CORRECT_BIAS, DYNAMIC, FP16, BF16, WEIGHT_ONLY)
