"""tflite-micro: the real interpreter, its arena, what it must not read."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import edge_models as edge
import numpy as np
import pytest
from qpipe_litert.flatbuffer import read_flatbuffer
from qpipe_litert.flatbuffer_edit import inline_buffers
from qpipe_mcu.build import refuse_other, require_parity
from qpipe_mcu.micro import Said, _refuse_any_arena, apart, open_micro, smallest_arena
from qpipe_mcu.tflm import TflmBackend

from qpipe.errors import BuildError, RefusedError, TargetError
from qpipe.records.engine import Engine, Prepared
from qpipe.records.target import Target

CORTEX = Target(name="cortex-m-tflm", backend="tflm", options={"arena_kib": 256, "flash_kib": 1024})


def _fact(engine: Engine, name: str) -> float:
    return next(fact.value for fact in engine.facts if fact.name == name)


def test_digits_lose_at_most_half_a_point_in_the_real_interpreter(
    cortex_engine: Engine, digits_ready: Prepared, digits: edge.Digits
) -> None:
    session = TflmBackend().open(cortex_engine, CORTEX)
    assert session.kind == "emulated"
    found = session.run({"input": digits.gate})["logits"]
    wanted = edge.run_onnx(digits_ready.graph.path, digits.gate)[0]
    drop = np.mean(wanted.argmax(1) == digits.label) - np.mean(found.argmax(1) == digits.label)
    assert drop <= 0.005
    assert edge.sqnr_db(wanted, found) > 25


def test_arena_is_the_smallest_that_works(cortex_engine: Engine) -> None:
    data, arena = cortex_engine.main_file.read_bytes(), int(_fact(cortex_engine, "arena_bytes"))
    open_micro(data, arena).invoke()
    with pytest.raises(RuntimeError):
        open_micro(data, arena - 64).invoke()
    assert 2048 < arena < 16384
    assert cortex_engine.placement is not None
    assert any("Arena allocation total" in note for note in cortex_engine.placement.notes)
    assert {"tflm FULLY_CONNECTED int8"} <= {one.kernel for one in cortex_engine.placement.nodes}


def test_flash_is_the_size_of_the_file(cortex_engine: Engine) -> None:
    assert _fact(cortex_engine, "flash_bytes") == cortex_engine.main_file.stat().st_size


@pytest.mark.parametrize(("options", "message"), [({"arena_kib": 4}, "of arena"), ({"flash_kib": 16}, "of flash")])
@pytest.mark.usefixtures("tool")
def test_model_that_does_not_fit_is_refused(
    digits_ready: Prepared, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(BuildError, match=f"{message}, target cortex-m-tflm has"):
        edge.built_engine(TflmBackend(), digits_ready, replace(CORTEX, options=options), tmp_path / "e")


def test_c_array_compiles_and_holds_the_model(cortex_engine: Engine, tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    main = tmp_path / "main.c"
    main.write_text(
        '#include <stdio.h>\n#include "model_data.h"\n'
        "int main(void) { return fwrite(qpipe_model_data, 1, qpipe_model_data_len, stdout) != qpipe_model_data_len; }\n"
    )
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I", str(cortex_engine.path)]
    array = str(cortex_engine.path / "model_data.c")
    subprocess.run(["gcc", "-c", *flags, array, "-o", str(tmp_path / "model.o")], check=True)
    subprocess.run(["gcc", *flags, str(main), str(tmp_path / "model.o"), "-o", str(tmp_path / "dump")], check=True)
    done = subprocess.run([str(tmp_path / "dump")], capture_output=True, check=True)
    assert done.stdout == cortex_engine.main_file.read_bytes()


def test_buffers_outside_the_flatbuffer_are_brought_in(cortex_engine: Engine, tmp_path: Path) -> None:
    """tflite-micro reads garbage from a file with buffers outside, and says nothing."""
    inlined = cortex_engine.main_file.read_bytes()
    outside = tmp_path / "outside.tflite"
    outside.write_bytes(_moved_out(inlined))
    assert read_flatbuffer(outside).outside_buffers > 0
    assert smallest_arena(outside.read_bytes()) > 0  # it loads and runs: no error at all
    with pytest.raises(BuildError, match="tflite-micro and LiteRT disagree"):
        require_parity(outside, outside.read_bytes(), 4 * 2**20)
    again = tmp_path / "again.tflite"
    again.write_bytes(inline_buffers(outside.read_bytes()))
    assert read_flatbuffer(again).outside_buffers == 0
    require_parity(again, again.read_bytes(), 64 * 1024)


@pytest.mark.parametrize(
    ("found", "integers", "said"),
    [
        (np.array([1, 2], np.int8), True, ""),
        (np.array([1, 5], np.int8), True, "by 4 steps"),
        (np.array([1.0, 2.0], np.float32), False, ""),
        (np.array([0.995, 2.0], np.float32), False, "53.0 dB; at least 60"),
        (np.array([0.995, 2.0], np.float32), True, ""),  # a sigmoid behind int8 kernels
        (np.array([0.8, 2.0], np.float32), True, "21.0 dB; at least 30"),
    ],
)
def test_both_interpreters_may_differ_by_rounding_alone(
    found: np.ndarray[tuple[int], np.dtype[np.generic]], integers: bool, said: str
) -> None:
    wanted = np.array([1, 1] if found.dtype == np.int8 else [1, 2], found.dtype)
    if not said:
        refuse_other(wanted, found, integers=integers)
        return
    with pytest.raises(RefusedError, match=f"disagree on the same file .*{said}"):
        refuse_other(wanted, found, integers=integers)


def _refused() -> None:
    os.write(2, b"of C++\n")
    raise RuntimeError("of Python")


def _crashed() -> None:
    faulthandler.disable()  # pytest's, which would say on the terminal that the tests crashed
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: None, "", ""),
        (_refused, "failed", "of C++\nof Python\n"),
        (_crashed, "crashed with SIGSEGV", ""),
    ],
    ids=["fits", "refused", "crashed"],
)
def test_an_arena_that_crashes_the_library_is_one_that_is_too_small(
    call: Callable[[], None], error: str, text: str
) -> None:
    assert apart(call) == Said(text=text, error=error)


def _moved_out(data: bytes) -> bytes:
    """The same model with its weights behind the flatbuffer, as ai-edge-quantizer writes larger models."""
    import flatbuffers
    from ai_edge_litert.schema_py_generated import Model, ModelT

    model = ModelT.InitFromObj(Model.GetRootAs(data, 0))
    moved = [
        (i, np.asarray(b.data, np.uint8).tobytes())
        for i, b in enumerate(model.buffers)
        if b.data is not None and len(b.data) > 1024
    ]
    for index, _ in moved:
        model.buffers[index].data = None
        model.buffers[index].offset = model.buffers[index].size = 2
    size = len(_packed(flatbuffers, model))
    tail = b""
    for index, payload in moved:
        start = (size + len(tail) + 63) // 64 * 64
        tail += b"\0" * (start - size - len(tail)) + payload
        model.buffers[index].offset, model.buffers[index].size = start, len(payload)
    packed = _packed(flatbuffers, model)
    assert len(packed) == size
    return packed + tail


def _packed(flatbuffers: object, model: object) -> bytes:
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@pytest.mark.usefixtures("tool")
def test_float_model_runs_too(tmp_path: Path, digits: edge.Digits) -> None:
    """The recipe `none` is the baseline of every target."""
    ready = edge.prepared(edge.digits_net(), tmp_path / "m")
    engine = edge.built_engine(TflmBackend(), ready, CORTEX, tmp_path / "e")
    found = TflmBackend().open(engine, CORTEX).run({"input": digits.gate[:32]})["logits"]
    np.testing.assert_allclose(found, edge.run_onnx(ready.graph.path, digits.gate[:32])[0], atol=1e-4)


@pytest.mark.parametrize("options", [{"arena": 4}, {"arena_kib": "4"}, {"arena_kib": -1}, {"arena_kib": True}])
def test_options_are_validated(options: dict[str, object]) -> None:
    with pytest.raises(TargetError, match="cortex-m-tflm"):
        TflmBackend().check(replace(CORTEX, options=options))


@pytest.mark.parametrize(
    ("text", "message", "lasts"),
    [
        (
            "got INT64.\nNode ARG_MAX (number 16) failed to invoke with status 1\nInterpreter invocation failed.",
            "tflite-micro's ARG_MAX does not take these types or shapes: got INT64.",
            True,
        ),
        (
            "Node DEQUANTIZE (number 2) failed to prepare with status 1\nTFLM failed to allocate tensors",
            "tflite-micro's DEQUANTIZE, which makes conv3_input_nhwc, does not take these types or shapes: "
            "it gives no reason",
            True,
        ),
        (
            "Failed to allocate temp memory. Requested: 260, available 8, missing: 252\n"
            "Node CONV_2D (number 5) failed to prepare with status 1",
            "tflite-micro needs an arena of more than 512 MiB for this model",
            True,
        ),
        ("std::bad_alloc", "tflite-micro cannot allocate the model in 512 MiB: std::bad_alloc", False),
    ],
    ids=["runs-not", "prepares-not", "too-large", "this-machine"],
)
def test_a_kernel_that_refuses_is_no_lack_of_memory(
    text: str, message: str, lasts: bool, cortex_engine: Engine
) -> None:
    """Memory that this machine lacks may be there at the next run; the others last."""
    with pytest.raises(BuildError) as told:
        _refuse_any_arena(Said(text=text, error="x"), 2**29, cortex_engine.main_file.read_bytes(), {})
    assert (told.value.message, told.value.lasts) == (message, lasts)
    assert ("int8" in told.value.hint) is ("DEQUANTIZE" in message)
