"""One digits engine per backend, built once; without the converter's environment those tests are skipped."""

from __future__ import annotations

import edge_models as edge
import pytest
from qpipe_litert.tools import tool_state
from qpipe_mcu.ethos import EthosBackend
from qpipe_mcu.tflm import TflmBackend

from qpipe.records.engine import Engine, Prepared, Unavailable
from qpipe.records.target import Target

CORTEX = Target(name="cortex-m-tflm", backend="tflm", options={"arena_kib": 256, "flash_kib": 1024})
U55 = Target(name="ethos-u55-128", backend="ethos-u", options={"accelerator": "ethos-u55-128"})


@pytest.fixture(scope="session")
def tool() -> None:
    """Skip where the converter's environment is not there."""
    state = tool_state()
    if isinstance(state, Unavailable):
        pytest.skip(f"{state.reason}: {state.hint}")


@pytest.fixture(scope="session")
def digits() -> edge.Digits:
    return edge.digits()


@pytest.fixture(scope="session")
def digits_ready(digits: edge.Digits, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return edge.prepared(edge.digits_net(), tmp_path_factory.mktemp("digits"), digits.calibration)


@pytest.fixture(scope="session")
def cortex_engine(tool: None, digits_ready: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return edge.built_engine(TflmBackend(), digits_ready, CORTEX, tmp_path_factory.mktemp("built") / "tflm")


@pytest.fixture(scope="session")
def u55_engine(tool: None, digits_ready: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return edge.built_engine(EthosBackend(), digits_ready, U55, tmp_path_factory.mktemp("built") / "u55")
