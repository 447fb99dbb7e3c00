"""What people and programs read of a run: tables, plots, the JSON document, one HTML page."""

from qpipe.report.page import write_run_report
from qpipe.report.shapes import result_schema

__all__ = ["result_schema", "write_run_report"]
