"""The suite that every backend passes."""

from __future__ import annotations

import pytest
from qpipe_openvino.backend import OpenVinoBackend
from qpipe_openvino.plugin import qpipe_targets

from qpipe.testing.contract import BackendContract


class TestOpenVino(BackendContract):
    vendor_modules = ("openvino",)

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        return OpenVinoBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls):
        return qpipe_targets()[0]
