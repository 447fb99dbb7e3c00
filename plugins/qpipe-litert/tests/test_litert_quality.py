"""The same recipe on LiteRT and on ONNX Runtime loses about as much."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import edge_models as edge
import onnx
import pytest
from qpipe_litert.backend import INT16, INTEGER, SCHEME, LiteRtBackend

from qpipe.errors import TargetError
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


WITH_INT16 = {"activations": "int16", "kernels": "reference"}


@pytest.mark.parametrize(
    ("named", "options", "scheme"),
    [
        ("", {}, SCHEME),
        ("litert", {}, SCHEME),
        ("litert-integer", {}, INTEGER),
        ("", {"io": "int8"}, INTEGER),
        ("", {"unranged": "float"}, INTEGER),
        ("", WITH_INT16, INT16),
        ("litert-16x8", WITH_INT16, INT16),
    ],
)
def test_a_scheme_goes_by_name_or_with_the_options(named: str, options: dict[str, object], scheme: Scheme) -> None:
    """Outputs are integers where the name, the file or the kernels ask for it."""
    target = Target(name="t", backend="litert", scheme=named, options=options)
    assert LiteRtBackend().scheme(target) == scheme
    assert bool(scheme.float_output_ops) == (scheme is SCHEME)


@pytest.mark.parametrize(
    ("named", "options", "fitting"),
    [
        ("litert", {"io": "int8"}, "litert-integer"),
        ("litert-16x8", {}, "litert or litert-integer"),
        ("litert-integer", WITH_INT16, "litert-16x8"),
    ],
)
def test_a_scheme_that_the_options_cannot_run_is_refused(named: str, options: dict[str, object], fitting: str) -> None:
    with pytest.raises(TargetError, match=f"scheme '{named}' does not go with its options") as told:
        LiteRtBackend().check(Target(name="t", backend="litert", scheme=named, options=options))
    assert told.value.hint == f"with these options: {fitting}"


@pytest.mark.usefixtures("tool")
def test_the_scheme_of_integers_has_integer_outputs_behind_a_float_border(digits: edge.Digits, tmp_path: Path) -> None:
    target = replace(TARGET, scheme="litert-integer")
    ready = _int8(LiteRtBackend().scheme(target), digits, tmp_path / "m")
    placement = edge.built_engine(LiteRtBackend(), ready, target, tmp_path / "e").placement
    assert placement is not None
    assert placement.float == 0
    assert not any(note.startswith("quantized at run time") for note in placement.notes)
