"""One digits engine per backend, built once; without the converter's environment those tests are skipped."""

from __future__ import annotations

import edge_models as edge
import pytest
from edge_fixtures import digits, digits_ready, tool
from qpipe_mcu.ethos import EthosBackend
from qpipe_mcu.tflm import TflmBackend

from qpipe.records.engine import Engine, Prepared
from qpipe.records.target import Target

__all__ = ["digits", "digits_ready", "tool"]

CORTEX = Target(name="cortex-m-tflm", backend="tflm", options={"arena_kib": 256, "flash_kib": 1024})
U55 = Target(name="ethos-u55-128", backend="ethos-u", options={"accelerator": "ethos-u55-128"})


@pytest.fixture(scope="session")
def cortex_engine(tool: None, digits_ready: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return edge.built_engine(TflmBackend(), digits_ready, CORTEX, tmp_path_factory.mktemp("built") / "tflm")


@pytest.fixture(scope="session")
def u55_engine(tool: None, digits_ready: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return edge.built_engine(EthosBackend(), digits_ready, U55, tmp_path_factory.mktemp("built") / "u55")
