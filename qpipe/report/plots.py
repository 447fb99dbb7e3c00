"""Plots of a run as SVG: accuracy against latency, latency of engine and float, drop per slice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.records.evidence import Evaluation, Percentile, Profile
from qpipe.records.result import CellResult
from qpipe.records.verdict import Decision, Verdict

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from qpipe.measure.samples import Samples

COLOUR = {Decision.PASS: "#15803d", Decision.FAIL: "#b91c1c", Decision.INCONCLUSIVE: "#b45309", None: "#64748b"}
"""By verdict; the reference and cells without one are grey."""
FLOAT, ENGINE = "#94a3b8", "#2563eb"
_STYLE = {
    "text.parse_math": False,  # names may hold a $
    "svg.hashsalt": "qpipe",  # the same run gives the same bytes
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "axes.edgecolor": "#94a3b8",
    "axes.axisbelow": True,
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
}
_POINTS = 400
"""An ECDF is drawn from this many quantiles: thousands of raw samples look the same and weigh more."""


def write_plots(cells: tuple[CellResult, ...], evidence: dict[str, Path], folder: Path) -> tuple[Path, ...]:
    """Every plot that the evidence allows, as `.svg` files in `folder`. `evidence`: folders by cell key."""
    written = []
    for index, group in enumerate(_by_metric(cells)):
        name = "quality-latency.svg" if index == 0 else f"quality-latency-{index + 1}.svg"
        written.append(plot_quality(group, folder / name))
    for cell in cells:
        path = folder / f"latency-{_slug(cell.label)}.svg"
        if cell.key in evidence and plot_latency(cell, evidence[cell.key], path):
            written.append(path)
        for verdict in cell.verdicts:
            if any(part.observed is not None for part in verdict.slices):
                path = folder / f"slices-{_slug(cell.label)}-{_slug(verdict.gate)}.svg"
                written.append(plot_slices(cell, verdict, path))
    return tuple(written)


def plot_quality(cells: tuple[CellResult, ...], path: Path) -> Path:
    """Metric against median latency at the first batch size, each with its interval.

    The vertical bar is the interval of the quality gate (difference to the float model, added to its value).
    """
    metric = _evaluation(cells[0]).metric
    with _figure(path, 6.4, 4.0) as figure:
        axes = figure.add_subplot()
        for cell in cells:
            _mark(axes, cell)
        axes.set_title(f"{metric} against latency (bars: one-sided 95 % bounds)")
        axes.set_xlabel("median latency, ms")
        axes.set_ylabel(metric)
        axes.margins(0.18)
    return path


def plot_latency(cell: CellResult, evidence: Path, path: Path) -> bool:
    """Distribution of the raw latencies of engine and float engine, a panel per batch size; False without samples."""
    import numpy as np

    from qpipe.measure.samples import FILE, load_samples

    if not (evidence / FILE).is_file() or cell.recipe == "none":
        return False
    samples = load_samples(evidence / FILE)
    names = [str(name) for name in samples.engines]
    sizes = samples.batches
    with _figure(path, 3.4 * len(sizes) + 0.6, 3.0) as figure:
        panels = figure.subplots(1, len(sizes), squeeze=False)[0]
        for axes, size in zip(panels, sizes, strict=True):
            for name in names:
                own = name == cell.label
                colour, label = (ENGINE, cell.recipe) if own else (FLOAT, "float")
                _ecdf(axes, samples, name, size, colour=colour, label=label)
            # One stall of the machine would squeeze everything else into a line.
            times = np.concatenate([samples.matrix_ms(name, size).ravel() for name in names])
            quick, slow = (float(np.quantile(times, share)) for share in (0.0, 0.95))
            axes.set_xlim(0.9 * quick, 1.3 * slow)
            axes.set_title(f"batch {size}")
            axes.set_xlabel("latency, ms (the slowest may lie outside)")
            axes.set_ylim(0, 1)
        panels[0].set_ylabel("share of runs")
        panels[-1].legend(frameon=False, loc="lower right")
        figure.suptitle(cell.label, x=0.01, ha="left", fontsize=10)
    return True


def plot_slices(cell: CellResult, verdict: Verdict, path: Path) -> Path:
    """Difference to the float model per slice with its interval, worst first, and the margin."""
    slices = sorted(
        (part for part in verdict.slices if part.observed is not None), key=lambda part: part.observed or 0.0
    )
    with _figure(path, 6.4, 1.2 + 0.26 * len(slices)) as figure:
        axes = figure.add_subplot()
        for row, part in enumerate(slices):
            seen = part.observed or 0.0
            low, high = (seen if bound is None else bound for bound in (part.low, part.high))
            axes.hlines(row, low, high, color=COLOUR[part.decision], linewidth=2)
            axes.plot(seen, row, "o", color=COLOUR[part.decision], markersize=4)
        if verdict.limit is not None:
            axes.axvline(verdict.limit, color=COLOUR[Decision.FAIL], linestyle="--", linewidth=1)
            axes.annotate("limit", (verdict.limit, 1), xycoords=("data", "axes fraction"), color=COLOUR[Decision.FAIL])
        axes.axvline(0, color="#475569", linewidth=1)
        axes.set_yticks(range(len(slices)), [f"{part.name}  (n = {part.n:,})" for part in slices])
        axes.invert_yaxis()
        axes.set_xlabel("engine − float model")
        axes.set_title(f"{cell.label}: {verdict.gate}", pad=16)
    return path


def _by_metric(cells: tuple[CellResult, ...]) -> list[tuple[CellResult, ...]]:
    """Cells with a figure and a latency, those of one metric and one model together."""
    groups: dict[tuple[str, str], list[CellResult]] = {}
    for cell in cells:
        if cell.evidence is None or _median(cell) is None:
            continue
        if isinstance(cell.evidence.evaluation, Evaluation) and cell.evidence.evaluation.value is not None:
            groups.setdefault((cell.model, cell.evidence.evaluation.metric), []).append(cell)
    return [tuple(group) for group in groups.values()]


def _mark(axes: Axes, cell: CellResult) -> None:
    median, value = _median(cell), _evaluation(cell).value
    if median is None or value is None:
        return
    colour = COLOUR[cell.decision]
    low, high = _quality_interval(cell, value)
    axes.errorbar(
        median.value,
        value,
        xerr=[[median.value - (median.low or median.value)], [(median.high or median.value) - median.value]],
        yerr=[[value - low], [high - value]],
        fmt="s" if cell.recipe == "none" else "o",
        color=colour,
        capsize=2,
        markersize=6,
        elinewidth=1.2,
    )
    axes.annotate(
        f"{cell.recipe} · {cell.target}", (median.value, value), xytext=(7, 6), textcoords="offset points", color=colour
    )


def _quality_interval(cell: CellResult, value: float) -> tuple[float, float]:
    """Bounds of the metric from the gate that judged its difference to the reference; none where no gate did."""
    reference = cell.evidence.reference if cell.evidence else None
    base = reference.value if isinstance(reference, Evaluation) else None
    for verdict in cell.verdicts:
        if base is None or verdict.observed is None or verdict.low is None or verdict.high is None:
            continue
        if verdict.gate == "quality" and abs(base + verdict.observed - value) < 1e-6:
            return min(value, base + verdict.low), max(value, base + verdict.high)
    return value, value


def _median(cell: CellResult) -> Percentile | None:
    profile = cell.evidence.profile if cell.evidence else None
    if not isinstance(profile, Profile) or not profile.batches:
        return None
    return dict(profile.batches[0].latency_ms).get("p50")


def _evaluation(cell: CellResult) -> Evaluation:
    if cell.evidence is None or not isinstance(cell.evidence.evaluation, Evaluation):
        raise ValueError(f"{cell.label} was not evaluated")
    return cell.evidence.evaluation


def _ecdf(axes: Axes, samples: Samples, name: str, size: int, *, colour: str, label: str) -> None:
    """One thin line per process, since the process is the unit, and a thick one over all."""
    for process in range(samples.processes):
        axes.plot(*_steps(samples.times_ms(name, size, process)), color=colour, linewidth=0.6, alpha=0.45)
    axes.plot(*_steps(samples.matrix_ms(name, size).ravel()), color=colour, linewidth=2, label=label)


def _steps(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Quantiles and shares, as an ECDF has them."""
    import numpy as np

    share = np.linspace(0, 1, min(_POINTS, max(2, len(values))))
    return np.quantile(values, share), share


def _slug(text: str) -> str:
    return "".join(char if char.isalnum() or char in "-_." else "-" for char in text)


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of its own, without pyplot's global state, saved on the way out."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # the stub wants a Literal of every setting
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, format="svg", metadata={"Date": None})
