"""The suite that every backend passes: once for a build alone, once with the graph simulated on the CPU."""

from __future__ import annotations

import pytest
from qpipe_tensorrt.backend import TensorRT
from qpipe_tensorrt.driver import NoGpu, find_gpus

from qpipe.records.target import Target
from qpipe.testing.contract import BackendContract

OPTIONS = {"product": "tensorrt-rtx", "compute_capability": "8.9"}


class TestBuildOnly(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        return TensorRT()

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls):
        return Target(name="rtx", backend="tensorrt", options={**OPTIONS, "compute_capability": "12.0"})


@pytest.mark.skipif(not isinstance(find_gpus(), NoGpu), reason="this machine has a GPU: nothing is simulated")
class TestSimulated(TestBuildOnly):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls):
        return Target(name="rtx", backend="tensorrt", options={**OPTIONS, "simulate": True})
