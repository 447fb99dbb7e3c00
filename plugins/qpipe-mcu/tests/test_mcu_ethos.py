"""Ethos-U: Vela's estimates, marked as such."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import edge_models as edge
import numpy as np
import pytest
from qpipe_litert.flatbuffer import read_flatbuffer
from qpipe_mcu.ethos import VELA_FILES, EthosBackend, facts_of
from qpipe_mcu.options import read_ethos
from qpipe_mcu.tflm import TflmBackend
from qpipe_mcu.vela import Estimate, _failure, compile_for_npu

from qpipe.errors import BuildError, RefusedError, TargetError
from qpipe.records.engine import Engine, Prepared
from qpipe.records.target import Target

U55 = Target(name="ethos-u55-128", backend="ethos-u", options={"accelerator": "ethos-u55-128"})


def test_every_fact_but_a_size_is_an_estimate_and_stands_under_the_name_that_gates_ask_for(u55_engine: Engine) -> None:
    facts = {fact.name: fact for fact in u55_engine.facts}
    assert {"arena_bytes", "sram_bytes", "flash_bytes", "npu_share", "npu_cycles", "inference_ms"} <= set(facts)
    assert {fact.name for fact in u55_engine.facts if fact.kind != "estimated"} == {"flash_bytes"}
    # Vela's own figure for U65 and U85 is nothing: any limit took that, of a file that has to lie somewhere.
    assert facts["flash_bytes"].value == (u55_engine.path / "model_vela.tflite").stat().st_size
    assert facts["npu_share"].value == 1.0
    assert facts["npu_cycles"].value > 10_000
    assert 1024 < facts["sram_bytes"].value < 32 * 1024
    assert u55_engine.placement is not None
    assert u55_engine.placement.elsewhere == 0


def test_folder_holds_both_models_and_the_c_array_of_the_npu_one(u55_engine: Engine) -> None:
    names = [file.name for file in u55_engine.files]
    assert names[0] == "model.tflite"
    assert set(VELA_FILES) <= set(names)
    ops = [op.name for op in read_flatbuffer(u55_engine.path / "model_vela.tflite").ops]
    assert "ethos-u" in ops
    size = (u55_engine.path / "model_vela.tflite").stat().st_size
    assert f"qpipe_model_data_len = {size}u" in (u55_engine.path / "model_data.c").read_text()


def test_outputs_are_those_of_the_file_before_vela(
    u55_engine: Engine, cortex_engine: Engine, digits: edge.Digits
) -> None:
    feed = {"input": digits.gate[:64]}
    cortex = Target(name="cortex-m-tflm", backend="tflm")
    one, other = EthosBackend().open(u55_engine, U55).run(feed), TflmBackend().open(cortex_engine, cortex).run(feed)
    np.testing.assert_array_equal(one["logits"], other["logits"])


@pytest.mark.parametrize("accelerator", ["ethos-u65-256", "ethos-u85-256"])
def test_other_accelerators_compile_the_same_file(u55_engine: Engine, tmp_path: Path, accelerator: str) -> None:
    options = read_ethos(replace(U55, options={"accelerator": accelerator}))
    estimate = compile_for_npu(u55_engine.main_file, tmp_path, options).estimate
    assert estimate.npu_share == 1.0
    assert estimate.cycles > 1000
    assert estimate.inference_ms > 0


@pytest.mark.usefixtures("tool")
def test_float_model_stays_on_the_cpu_and_says_so(tmp_path: Path) -> None:
    ready = edge.prepared(edge.digits_net(), tmp_path / "m")
    engine = edge.built_engine(EthosBackend(), ready, U55, tmp_path / "e")
    facts = {fact.name: fact.value for fact in engine.facts}
    assert facts["npu_share"] == facts["npu_cycles"] == 0.0
    # Vela says 0 ms and 0 bytes there, which any limit would take.
    assert set(facts) == {"npu_share", "npu_cycles", "arena_bytes", "flash_bytes"}
    assert engine.placement is not None
    assert engine.placement.elsewhere > 0
    assert any("no inference_ms, sram and dram here" in note for note in engine.placement.notes)


@pytest.mark.parametrize(("cpu_ops", "whole"), [(0, True), (1, False)])
def test_figures_that_leave_the_cpu_out_are_not_the_engines(cpu_ops: int, whole: bool) -> None:
    """A network with one operator on the CPU was given the time of the others."""
    estimate = Estimate(
        cycles=500,
        inference_ms=0.001,
        sram_bytes=1,
        dram_bytes=0,
        npu_ops=4,
        cpu_ops=cpu_ops,
        cpu_names=(),
    )
    names = {fact.name for fact in facts_of(estimate, 64, 1024)}
    assert {"npu_cycles", "npu_share", "arena_bytes", "flash_bytes"} <= names
    assert ({"inference_ms", "sram_bytes", "dram_bytes"} <= names) is whole


@pytest.mark.usefixtures("tool")
@pytest.mark.parametrize("what", ["sram", "flash"])
def test_limits_refuse(digits_ready: Prepared, tmp_path: Path, what: str) -> None:
    small = replace(U55, options={"accelerator": "ethos-u55-128", f"{what}_kib": 1})
    with pytest.raises(BuildError, match=f"of {what}, target ethos-u55-128 has 1024"):
        edge.built_engine(EthosBackend(), digits_ready, small, tmp_path / "e")


def test_vela_that_refuses_is_a_refusal_that_lasts(u55_engine: Engine, tmp_path: Path) -> None:
    options = replace(read_ethos(U55), system="No_Such_System")
    with pytest.raises(RefusedError, match=r"Vela refuses this model: Incorrect .*No_Such_System not found"):
        compile_for_npu(u55_engine.main_file, tmp_path, options)


@pytest.mark.parametrize(
    ("code", "said", "complained", "lasts", "message"),
    [
        (
            1,
            "Warning: x\nError: Input network uses a feature\n",
            "",
            True,
            "Vela refuses this model: Input network uses",
        ),
        (1, "", "Traceback (most recent call last):\nMemoryError\n", False, "Vela failed (exit 1): MemoryError"),
        (-9, "Error: cut", "", False, "Vela failed (exit -9): Error: cut"),
        (1, "", "", False, "Vela failed (exit 1): no output"),
    ],
)
def test_what_vela_says_itself_lasts(code: int, said: str, complained: str, lasts: bool, message: str) -> None:
    error = _failure(code, said, complained)
    assert error.lasts is lasts
    assert error.message.startswith(message)


def test_what_was_not_run_is_not_said_to_be_compared(u55_engine: Engine) -> None:
    assert any(note.startswith("tflite-micro agrees with onnxruntime on made-up rows") for note in u55_engine.notes)
    assert any(note.startswith("Vela's file was not run") for note in u55_engine.notes)


@pytest.mark.parametrize(
    "options", [{}, {"accelerator": "ethos-u55-512"}, {"accelerator": "ethos-u55-128", "mode": "x"}]
)
def test_options_are_validated(options: dict[str, object]) -> None:
    with pytest.raises(TargetError, match="ethos-u55-128"):
        EthosBackend().check(replace(U55, options=options))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("system", "Ethos_U55_High_End", "Vela's Arm/vela.ini does not have; did you mean"),
        ("memory", "Shared", "memory is 'Shared', which Vela's"),
    ],
)
def test_a_system_that_vela_does_not_know_is_found_before_work(key: str, value: str, message: str) -> None:
    pytest.importorskip("ethosu")
    with pytest.raises(TargetError, match=message) as error:
        EthosBackend().check(replace(U55, options={**U55.options, key: value}))
    assert "Shared_Sram" in error.value.hint or "Ethos_U55_Deep_Embedded" in error.value.hint
