"""Plots of a run as SVG: accuracy against latency, latency of engine and float, drop per slice."""

from qpipe.report.plots.written import NO_PLOTS, Plots, write_plots

__all__ = ["NO_PLOTS", "Plots", "write_plots"]
