"""Engines that several tests look at are built once; without the converter's environment those tests are skipped."""

from __future__ import annotations

from pathlib import Path

import edge_models as edge
import pytest
from edge_fixtures import digits, digits_ready, tool
from qpipe_litert.backend import LiteRtBackend
from qpipe_litert.convert import Converted, convert
from qpipe_litert.options import Options
from qpipe_litert.tools import tool_environment

from qpipe.records.engine import Engine, Prepared
from qpipe.records.target import Target

__all__ = ["digits", "digits_ready", "tool"]

TARGET = Target(name="x86-litert", backend="litert")


@pytest.fixture(scope="session")
def digits_engine(tool: None, digits_ready: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return edge.built_engine(LiteRtBackend(), digits_ready, TARGET, tmp_path_factory.mktemp("built") / "digits")


@pytest.fixture(scope="session")
def conv_ready(digits: edge.Digits, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Residual Add, Concat and pools, with its head fitted on digits."""
    model = edge.fitted(edge.conv_net(), digits.calibration, digits.calibration_label)
    return edge.prepared(model, tmp_path_factory.mktemp("conv"), digits.calibration)


@pytest.fixture(scope="session")
def conv_float(tool: None, conv_ready: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    folder: Path = tmp_path_factory.mktemp("converted")
    return convert(conv_ready, folder, Options(), tool_environment())
