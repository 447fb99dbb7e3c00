"""The suite that every backend passes."""

from __future__ import annotations

import pytest
from qpipe_litert.backend import LiteRtBackend

from qpipe.records.target import Target
from qpipe.testing.contract import BackendContract


@pytest.mark.usefixtures("tool")
class TestLiteRt(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        return LiteRtBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls):
        return Target(name="x86-litert", backend="litert", scheme="litert")
