"""The suite that every backend passes."""

from __future__ import annotations

import pytest
from qpipe_openvino.backend import OpenVinoBackend
from qpipe_openvino.plugin import qpipe_targets

from qpipe.testing.contract import BackendContract


class TestOpenVino(BackendContract):
    builds_differ = "OpenVINO counts the nodes that it names through the whole process, a run builds each in its own"

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        return OpenVinoBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls):
        return qpipe_targets()[0]
