"""The honest fake backend passes the suite, installed onnxruntime beneath it."""

import pytest

from qpipe.records.target import Target
from qpipe.testing.contract import BackendContract
from qpipe.testing.fake import FakeBackend


class TestHonest(BackendContract):
    float_tolerance = 1e-5

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        return FakeBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls):
        return Target(
            name="pretend", backend="fake", options={"weight_bytes": 10, "integer_nodes": 0, "float_nodes": 1}
        )


class TestBuildOnly(TestHonest):
    """As a toolchain without its device: built here, never run."""

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls):
        return Target(name="pretend", backend="fake", options={"run_unavailable": "no such device"})
