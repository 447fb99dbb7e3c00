"""What people and programs read of a run: tables, plots, the JSON document, one HTML page."""

from qpipe.report.fleetpage import fleet_page
from qpipe.report.page import write_run_report
from qpipe.report.plots import NO_PLOTS, Plots, write_plots
from qpipe.report.shapes import result_schema

__all__ = ["NO_PLOTS", "Plots", "fleet_page", "result_schema", "write_plots", "write_run_report"]
