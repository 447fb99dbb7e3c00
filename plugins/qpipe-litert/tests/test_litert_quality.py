"""The same recipe on LiteRT and on ONNX Runtime loses about as much."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import edge_models as edge
import onnx
import pytest
from qpipe_litert.backend import INTEGER, SCHEME, LiteRtBackend

from qpipe.models import read_model
from qpipe.plugins.backend import Tensors
from qpipe.prepare import builtin_recipe, prepare
from qpipe.quant.schemes import ORT_ARM64
from qpipe.records.engine import Prepared
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target
from qpipe.testing.progress import Silent

TARGET = Target(name="x86-litert", backend="litert")


def _int8(scheme: Scheme, digits: edge.Digits, folder: Path) -> Prepared:
    """The digits net after the recipe `int8`."""
    folder.mkdir()
    onnx.save(edge.digits_net(), folder / "digits.onnx")
    model = read_model(folder / "digits.onnx", name="digits", origin="test")

    def batches() -> Iterator[Tensors]:
        yield {"input": digits.calibration[:128]}

    return prepare(model, builtin_recipe("int8", scheme), scheme, batches, folder / "p", None, Silent())


@pytest.mark.usefixtures("tool")
def test_int8_is_within_a_decibel_of_onnxruntime(digits: edge.Digits, tmp_path: Path) -> None:
    """arm64 quantizes the same layers; the logits stay float on both sides."""
    ort = _int8(ORT_ARM64, digits, tmp_path / "ort")
    ready = _int8(SCHEME, digits, tmp_path / "litert")
    engine = edge.built_engine(LiteRtBackend(), ready, TARGET, tmp_path / "e")
    wanted = edge.run_onnx(edge.digits_net(), digits.gate)[0]
    theirs = edge.sqnr_db(wanted, edge.run_onnx(ort.deployable.path, digits.gate)[0])
    ours = edge.sqnr_db(wanted, LiteRtBackend().open(engine, TARGET).run({"input": digits.gate})["logits"])
    assert ours > theirs - 1.0
    assert engine.placement is not None
    assert engine.placement.float == 0
    assert "quantized at run time: FULLY_CONNECTED logits (its output logits stays float)" in engine.placement.notes


@pytest.mark.parametrize(
    ("options", "scheme"),
    [
        ({}, SCHEME),
        ({"io": "int8"}, INTEGER),
        ({"unranged": "float"}, INTEGER),
    ],
)
def test_outputs_are_integers_where_the_file_or_the_kernels_ask_for_it(
    options: dict[str, object], scheme: Scheme
) -> None:
    assert LiteRtBackend().scheme(Target(name="t", backend="litert", options=options)) == scheme
    assert bool(scheme.float_output_ops) == (not options)
