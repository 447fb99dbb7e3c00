"""Which failures of the toolchain last: the same graph meets them again, so they are told from the store."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import edge_models as edge
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from qpipe_litert import convert as converting
from qpipe_litert.comparing import compare_engine
from qpipe_litert.convert import conversion_failure
from qpipe_litert.interpreter import refused_by_kernel
from qpipe_litert.options import Options
from qpipe_litert.tools import ToolEnvironment

from qpipe.errors import BuildError, RefusedError
from qpipe.plugins.backend import Tensors
from qpipe.quant.schemes import LITERT
from qpipe.records.engine import Prepared
from qpipe.records.model import OnnxFile
from qpipe.records.quantization import QuantPlan, WeightSpec


def ended(raising: str) -> BuildError:
    """As Python ends with an exception of that kind."""
    done = subprocess.run([sys.executable, "-c", raising], capture_output=True, text=True, check=False)
    return conversion_failure(done.returncode, done.stdout + done.stderr)


@pytest.mark.parametrize(
    ("said", "code", "lasts"),
    [
        ("onnx2tf.tflite_builder.core.op_contracts.NodeValidationError: unsupported rank", 1, True),
        ("KeyError: 'y'", 1, True),
        ("AssertionError", 1, True),
        ("MemoryError", 1, False),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8. GiB", 1, False),
        ("OSError: [Errno 28] No space left on device", 1, False),
        ("RuntimeError: can't start new thread", 1, False),
        ("KeyError: 'y'", -9, False),
        ("", -11, False),
    ],
)
def test_an_exception_about_values_lasts_and_one_about_the_machine_does_not(said: str, code: int, lasts: bool) -> None:
    error = conversion_failure(code, f"progress 1/3\n{said}\n")
    assert (error.lasts, isinstance(error, RefusedError)) == (lasts, lasts)
    assert said in error.message


def test_the_last_line_is_read_as_python_writes_it() -> None:
    assert ended("raise ValueError('of values')").message == "onnx2tf refuses this graph: ValueError: of values"
    assert not ended("raise MemoryError").lasts


@pytest.mark.parametrize(
    ("reason", "lasts"),
    [
        (
            "reshape.cc:92 num_input_elements != num_output_elementsNode number 3 (RESHAPE) failed to prepare.",
            True,
        ),
        ("Input tensor 12 lacks data", True),
        ("XNNPack delegate failed to reshape runtimeNode number 51 (TfLiteXNNPackDelegate) failed to prepare.", False),
        ("unidirectional_sequence_rnn.cc:409Node number 3 (UNIDIRECTIONAL_SEQUENCE_RNN) failed to invoke.", True),
        ("something else", False),
    ],
)
def test_a_kernel_that_does_not_take_its_tensors_lasts(reason: str, lasts: bool) -> None:
    assert refused_by_kernel(reason) is lasts


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [("lasts", "lasts", "first"), ("lasts", "passes", "second"), ("passes", "lasts", "first")],
)
def test_of_two_tries_the_one_that_may_end_otherwise_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str, told: str
) -> None:
    """The converter is not needed: what it is asked for fails at once."""
    errors = iter(
        (BuildError("first", lasts=first == "lasts"), BuildError("second", lasts=second == "lasts")),
    )

    def fails(*_: object) -> bytes:
        raise next(errors)

    monkeypatch.setattr(converting, "converted_once", fails)
    ready = edge.prepared(edge.single_op_net("Relu"), tmp_path / "m")
    with pytest.raises(BuildError, match=told) as error:
        converting.convert(ready, tmp_path, Options(), ToolEnvironment(folder=tmp_path))
    assert error.value.lasts is (first == second == "lasts")


class Answers:
    """A session with scripted answers."""

    kind = "measured"

    def __init__(self, ready: Prepared, answer: object) -> None:
        self.signature = ready.signature
        self._answer = answer

    def run(self, inputs: Tensors) -> Tensors:
        return {"out": self._answer(inputs["image"])}

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: np.maximum(x, 0), "agrees with onnxruntime on made-up rows: the same numbers"),
        (
            lambda x: np.maximum(x, 0) * np.float32(1.2),
            "computes another 'out' than onnxruntime on made-up rows: 14.0 dB",
        ),
        (np.zeros_like, "gives one and the same number everywhere in out"),
        (lambda x: np.where(x > 0, x, np.nan), "not finite in the same places"),
        (lambda x: np.maximum(x, 0)[:1], "its shape is [1, 1, 8, 8], the graph's [2, 1, 8, 8]"),
    ],
)
def test_an_engine_that_computes_something_else_is_refused_for_good(tmp_path: Path, answer: object, said: str) -> None:
    ready = edge.prepared(edge.single_op_net("Relu"), tmp_path)
    try:
        told = compare_engine(ready, Answers(ready, answer), rows=2, runtime="X")
    except RefusedError as error:
        told = error.message
    assert told.startswith("X ")
    assert said in told


def _planned(folder: Path, bits: int) -> Prepared:
    """A Relu whose rendering gives 1.1 of it: a plan that costs 20 dB by itself."""
    model = edge.single_op_net("Relu")
    model.graph.node[0].output[0] = "r"
    model.graph.node.append(helper.make_node("Mul", ["r", "k"], ["out"]))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1.1), "k"))
    onnx.save(model, folder / "qdq.onnx")
    weights = (WeightSpec(tensor="k", dtype="int8", bits=bits, symmetric=True, axis=0),)
    ready = edge.prepared(edge.single_op_net("Relu"), folder)
    return replace(
        ready,
        plan=QuantPlan(scheme=LITERT, mode="static", activations=(), weights=weights, nodes=()),
        qdq=OnnxFile(path=folder / "qdq.onnx", digest="1" * 64, size_bytes=1),
    )


@pytest.mark.parametrize(
    ("gain", "bits", "said"),
    [
        (1.1, 8, "made-up rows: the same numbers"),
        (1.0, 8, "20.8 dB, no further from the float graph than the plan's rounding explains"),
        (1.3, 8, "14.8 dB, further from the float graph than the plan's rounding explains"),
        (2.0, 8, "X computes another 'out' than onnxruntime on made-up rows: 1.7 dB"),
        (2.0, 4, "1.7 dB, further from the float graph than the plan's rounding explains"),
        (-1.0, 4, "X computes another 'out' than onnxruntime on made-up rows: -5.6 dB"),
    ],
)
def test_what_the_plan_costs_by_itself_is_not_held_against_an_engine(
    tmp_path: Path, gain: float, bits: int, said: str
) -> None:
    """Between rounding and another answer the engine's note says how far it is; 4 bits are rounded by other rules."""
    ready = _planned(tmp_path, bits)
    scaled = Answers(ready, lambda x: np.maximum(x, 0) * np.float32(gain))
    try:
        told = compare_engine(ready, scaled, rows=2, runtime="X")
    except RefusedError as error:
        told = error.message
    assert said in told
