"""Where no terminal says how wide it is, a log gets whole lines."""

import io
import sys

import pytest

from qpipe.cli.options import LOG_COLUMNS, results


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "columns", "width"),
    [(io.StringIO(), None, LOG_COLUMNS), (io.StringIO(), "100", 100), (Terminal(), "90", 90), (Terminal(), "12", 40)],
    ids=["log", "log with COLUMNS", "terminal", "a terminal that is too narrow for any table"],
)
def test_results_are_as_wide_as_their_reader(stream, columns, width, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    assert results().width == width
