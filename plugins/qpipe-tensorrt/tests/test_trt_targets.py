"""The targets that ship with qpipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from qpipe_tensorrt import capability
from qpipe_tensorrt.backend import TensorRT
from qpipe_tensorrt.options import read_options

from qpipe.config.targets import read_targets
from qpipe.records.engine import Unavailable

SHIPPED = {
    "nvidia-rtx-ampere": ("tensorrt-rtx", "8.6", False),
    "nvidia-rtx-ada": ("tensorrt-rtx", "8.9", True),
    "nvidia-rtx-blackwell": ("tensorrt-rtx", "12.0", True),
    "nvidia-a100": ("tensorrt", "8.0", False),
    "nvidia-h100": ("tensorrt", "9.0", True),
    "nvidia-h200": ("tensorrt", "9.0", True),
    "jetson-orin": ("tensorrt", "8.7", False),
}


@pytest.fixture(scope="module")
def shipped():
    folder = Path(__file__).resolve().parents[3] / "targets"
    return {target.name: target for target in read_targets(folder, owner="test") if target.backend == "tensorrt"}


def test_all_are_there(shipped):
    assert set(shipped) == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_each_says_product_capability_and_precisions(shipped, name):
    product, number, has_fp8 = SHIPPED[name]
    options = read_options(shipped[name])
    assert (options.product, options.compute_capability) == (product, number)
    assert options.precisions == capability.precisions(number)
    assert ("fp8" in options.precisions) == has_fp8
    assert shipped[name].summary


@pytest.mark.parametrize("name", SHIPPED)
def test_each_is_possible_and_says_what_is_missing_here(shipped, name):
    found = TensorRT().check(shipped[name])
    for state in (found.build, found.run):
        assert not (isinstance(state, Unavailable) and state.impossible)
        assert not isinstance(state, Unavailable) or state.reason
