"""Plots of a run as SVG: accuracy against latency, latency of engine and float, drop per slice."""

from qpipe.report.plots.written import slug, write_cell_plots, write_plots

__all__ = ["slug", "write_cell_plots", "write_plots"]
