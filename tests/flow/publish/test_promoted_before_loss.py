"""What was promoted before MLflow was lost, or before another engine was refused, is told."""

import threading
from types import SimpleNamespace

import pytest

from qpipe.errors import PromotionError, TrackingError
from qpipe.flow.publish import log
from qpipe.records.result import Promoted
from qpipe.report import NO_PLOTS


@pytest.mark.parametrize(
    ("trouble", "lost", "told"), [(TrackingError("gone"), True, ["a"]), (PromotionError("no right"), False, ["a", "c"])]
)
def test_the_promotions_before_and_after_are_told(monkeypatch, trouble, lost, told):
    def promote(_tracker, result, *_):
        if result.key == "b":
            raise trouble
        return Promoted(model=result.key, version="1", alias="champion", engine="e")

    cells = tuple(SimpleNamespace(key=key) for key in "abc")
    monkeypatch.setattr(log, "_log_cells", lambda *_, **__: {})
    monkeypatch.setattr(log, "promotable", lambda results, _: results)
    monkeypatch.setattr(log, "_promote", promote)
    workplace = SimpleNamespace(pipeline=SimpleNamespace(promote=object()))
    found = log.publish(
        SimpleNamespace(warnings=()), "parent", workplace, cells, plots=NO_PLOTS, promote=True, stop=threading.Event()
    )
    assert [one.model for one in found.promoted] == told
    assert (found.lost, found.problem) == (lost, trouble.message)
