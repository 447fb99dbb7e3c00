"""Stage `calibrate`: one streamed pass over the calibration rows; statistics are shared by all recipes of a model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from qpipe.plugins.stage import Draft, StageContext, StageType


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateParams:
    """Parameters of `calibrate`."""

    memory_mb: int = 96
    """Bound on the activations of one run, in MiB; batches are cut until they fit."""
    drawn_per_row: int = 2048
    """Values of each tensor and row that enter histograms."""
    channels: bool = False
    """Keep channel vectors of convolutions' tensors too, for ranges per channel."""


def _apply(draft: Draft, params: object, context: StageContext) -> Draft:
    from qpipe.quant.calibration.calibrate import calibrate
    from qpipe.quant.calibration.observed import observed_tensors
    from qpipe.quant.calibration.statistics import VERSION, save_statistics
    from qpipe.quant.check import ROWS
    from qpipe.quant.diagnosis.lint import VERSION as LINT
    from qpipe.quant.diagnosis.lint import lint_batches, lint_calibration, load_lint, save_lint
    from qpipe.quant.graph import open_graph
    from qpipe.quant.microbatches import first_rows

    assert isinstance(params, CalibrateParams)

    model = open_graph(draft.graph.path)
    axes = observed_tensors(model.graph, context.scheme)

    def make(folder: Path) -> None:
        found = calibrate(
            model,
            context.calibration(),
            axes,
            memory_bytes=params.memory_mb * 2**20,
            drawn_per_row=params.drawn_per_row,
            channels=params.channels,
            advance=context.progress.advance,
        )
        save_statistics(found, folder)
        beside = lint_batches(model, first_rows(model, context.calibration(), ROWS))
        save_lint((*lint_calibration(found), *beside), folder)

    text = f"statistics {VERSION} lint {LINT} {draft.graph.digest} {params} {sorted(axes.items())}"
    folder = context.cached(hashlib.sha256(text.encode()).hexdigest(), make)
    return replace(draft, statistics=folder, remarks=(*draft.remarks, *load_lint(folder)))


CALIBRATE: StageType[object] = StageType(
    name="calibrate",
    summary="gather ranges, means and histograms in one streamed pass",
    params=CalibrateParams,
    apply=_apply,
    needs_calibration=True,
)
