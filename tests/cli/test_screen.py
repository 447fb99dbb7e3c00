"""Progress on the terminal."""

import pytest

from qpipe.cli.screen import Screen
from qpipe.execute.children.progress import ProgressEvent
from qpipe.report.table import as_text

LABEL = "resnet20/int8-excluding-the-stem-equalized-and-[more]/cpu-local"


@pytest.mark.parametrize(("width", "bar"), [(80, False), (160, True)])
def test_step_count_and_time_are_seen_beside_a_long_label(monkeypatch, width, bar):
    monkeypatch.setenv("COLUMNS", str(width))
    screen = Screen()
    for label, total in ((LABEL, 8), (f"{LABEL}-2", None)):
        screen.begin(label)
        screen.update(label, ProgressEvent(step="attribute the loss", done=3, total=total))
    known, unknown = as_text(screen._progress.get_renderable(), width).splitlines()
    assert "attribute the loss" in known
    assert "attribute the loss" in unknown
    assert "3/8" in known
    assert "?" not in unknown
    assert ("━" in known) is bar
    assert ("[more]" in known) is bar
