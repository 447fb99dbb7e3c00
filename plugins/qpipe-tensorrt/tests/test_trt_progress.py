import pytest
from qpipe_tensorrt.backend import TensorRT

from qpipe.errors import Interrupted


def test_phases_become_steps(build, nets, progress):
    build(nets.small())
    assert progress.steps[0] == "tensorrt: read graph"
    assert "tensorrt: building engine" in progress.steps
    assert progress.advanced > 0


@pytest.mark.parametrize("stop", [Interrupted("stopped"), KeyboardInterrupt()])
def test_what_progress_raises_stops_the_builder(*, rtx, nets, prepared, target, tmp_path, progress, stop):
    calls = []

    def advance(amount=1):
        calls.append(amount)
        if len(calls) == 3:
            raise stop

    progress.advance = advance
    with pytest.raises(type(stop)):
        TensorRT().build(prepared(nets.resnet20()), target(), tmp_path, progress)
    assert len(calls) == 3
    assert not (tmp_path / "engine.trt").exists()
