"""The suite that every backend passes: the interpreter's, and Vela's."""

from __future__ import annotations

import pytest
from qpipe_mcu.ethos import EthosBackend
from qpipe_mcu.tflm import TflmBackend

from qpipe.records.target import Target
from qpipe.testing.contract import BackendContract


@pytest.mark.usefixtures("tool")
class TestTflm(BackendContract):
    light_modules = ("qpipe_litert",)

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        return TflmBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls):
        return Target(name="cortex-m-tflm", backend="tflm", scheme="litert-integer", options={"arena_kib": 256})


class TestEthos(TestTflm):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        return EthosBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls):
        return Target(name="ethos-u55-128", backend="ethos-u", options={"accelerator": "ethos-u55-128"})
