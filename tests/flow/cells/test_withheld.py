"""Times that say nothing of the hardware are not taken at all."""

import pytest

from qpipe.flow.cells.profiles import withheld


@pytest.mark.parametrize("kind", ["emulated", "estimated", "simulated"])
def test_only_measured_runs_are_timed(kind):
    assert withheld(kind) == f"timings of {kind} runs mean nothing for the hardware: withheld"
    assert withheld("measured") is None
