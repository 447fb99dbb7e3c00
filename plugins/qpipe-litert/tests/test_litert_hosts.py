"""A `.tflite` on other machines: here through the same runner, and under an arm64 emulator where there is one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import edge_models as edge
import numpy as np
import pytest
from qpipe_litert.backend import LiteRtBackend
from qpipe_litert.interpreter import invoke, open_interpreter
from qpipe_litert.options import Options
from qpipe_litert.remote import KNOWN, RUNTIME, open_remote
from qpipe_litert.session import read_layout

from qpipe.errors import EngineError
from qpipe.hosts import emulator
from qpipe.hosts import session as host_session
from qpipe.hosts.emulator import EmulatedDevice
from qpipe.hosts.engine import DeviceEngine
from qpipe.hosts.known_answer import ask_network, read_known_answer, require_known_answer
from qpipe.hosts.qemu_root import qemu_root, root_state
from qpipe.hosts.remote import ONNXRUNTIME, Job, RemoteEngine
from qpipe.plugins.backend import DeviceTimed, OnDevice, Remarking
from qpipe.records.engine import Engine, Kind, Prepared, Ready, Unavailable
from qpipe.records.target import Host, Target

ARM64 = Target(
    name="linux-arm64-litert", backend="litert", arch="aarch64", host=Host(kind="emulator", address="qemu-aarch64")
)


class Here:
    """A device that is this machine: the runner as a plain child."""

    kind: Kind = "emulated"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "qpipe-here"

    def check(self) -> Ready | Unavailable:
        return Ready()

    def fingerprint(self) -> str:
        return "this machine"

    def push(self, source: Path, name: str) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / name).write_bytes(source.read_bytes())

    def command(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        return (sys.executable, str(self.folder / arguments[0]), *arguments[1:])

    def explain(self, said: str) -> str:
        return said.strip().splitlines()[-1]

    def remove(self) -> None:
        assert not self.folder.exists()  # the runner has removed it


def test_known_answer_holds_here() -> None:
    known = read_known_answer(KNOWN.rows)
    found = invoke(open_interpreter(KNOWN.job.file), (known.inputs,))[0]
    assert np.abs(found.astype(int) - known.outputs.astype(int)).max() <= 1
    assert np.ptp(known.outputs.astype(int)) > 100


def test_known_answer_is_asked_of_the_device(tmp_path: Path) -> None:
    ask_network(Here(tmp_path), KNOWN, timeout_s=60)
    known = read_known_answer(KNOWN.rows)
    other = replace(known, outputs=known.outputs.astype(np.int16) + 7)
    with pytest.raises(EngineError, match=r"the known-answer test failed: this machine is off by [678] steps"):
        require_known_answer(Here(tmp_path), KNOWN.job, other, timeout_s=60)


def test_session_on_a_device_equals_the_one_here(
    digits_engine: Engine, digits: edge.Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target(name="x86-litert", backend="litert")

    def here(_: Host, **__: str) -> Here:
        return Here(tmp_path)

    monkeypatch.setattr(host_session, "open_device", here)
    session = open_remote(digits_engine, target, read_layout(digits_engine.path), Options())
    try:
        for rows in (3, 1, 8):  # another batch resizes there too
            found = session.run({"input": digits.gate[:rows]})["logits"]
            wanted = LiteRtBackend().open(digits_engine, target).run({"input": digits.gate[:rows]})["logits"]
            np.testing.assert_array_equal(found, wanted)
        assert isinstance(session, DeviceTimed)
        assert 0 < session.device_ns[0] < 1e9
        assert dict(session.device_conditions())["machine"]
        assert isinstance(session, OnDevice)
        before, peak = session.device_memory_bytes
        assert 1e6 < before < peak
        assert dict(session.device_conditions())["runtime"].startswith("ai-edge-litert ")
        assert isinstance(session, Remarking)
        assert "all 12 rows are bitwise equal" in session.remarks[0]
        assert session.remarks[1].startswith("known-answer test passed: off by ")
    finally:
        session.close()
    assert list(tmp_path.iterdir()) == []


def test_runtime_that_fails_at_load_is_explained(tmp_path: Path) -> None:
    broken = tmp_path / "model.tflite"
    broken.write_bytes(b"no flatbuffer")
    with pytest.raises(EngineError, match=r"ValueError: .*not a valid Flatbuffer"):
        DeviceEngine(Here(tmp_path), Job(file=broken, runtime=RUNTIME), timeout_s=60)


@pytest.fixture
def arm64() -> None:
    state = root_state()
    if isinstance(state, Unavailable):
        pytest.skip(f"{state.reason}: {state.hint}")


@pytest.mark.device
@pytest.mark.usefixtures("arm64")
def test_the_root_folder_shows_the_cpu_that_is_emulated() -> None:
    """onnxruntime reads `/proc/cpuinfo`, and crashes at import on an x86 one."""
    shown = (qemu_root().folder / "proc" / "cpuinfo").read_text()
    assert "CPU part\t: 0xd0c" in shown  # Neoverse N1
    assert "asimddp" in shown


@pytest.mark.device
@pytest.mark.usefixtures("arm64")
def test_arm64_litert_is_within_a_step_of_x86(digits_engine: Engine, digits: edge.Digits) -> None:
    step = 1.001 * max(t for t in _scales(digits_engine) if t)
    x86 = replace(ARM64, arch="", host=Host())
    wanted = LiteRtBackend().open(digits_engine, x86).run({"input": digits.gate[:256]})["logits"]
    session = LiteRtBackend().open(digits_engine, ARM64)
    try:
        assert session.kind == "emulated"
        found = session.run({"input": digits.gate[:256]})["logits"]
    finally:
        session.close()
    assert np.abs(found - wanted).max() <= step


def _scales(engine: Engine) -> list[float]:
    from qpipe_litert.flatbuffer import read_flatbuffer

    flat = read_flatbuffer(engine.main_file)
    maker = {i: op for op in flat.ops for i in op.outputs}
    last = maker[flat.outputs[0]]
    return [scale for index in (*last.inputs, *last.outputs) for scale in flat.tensors[index].scale]


@pytest.mark.device
@pytest.mark.usefixtures("arm64")
def test_emulated_cpu_that_computes_wrong_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """qemu's own default."""
    ask_network(EmulatedDevice("qemu-aarch64"), KNOWN, timeout_s=120)
    monkeypatch.setattr(emulator, "CPU", "max")
    with pytest.raises(EngineError, match="the known-answer test failed"):
        ask_network(EmulatedDevice("qemu-aarch64", cpu="max"), KNOWN, timeout_s=120)


@pytest.mark.device
@pytest.mark.usefixtures("arm64")
def test_arm64_onnxruntime_int8_is_bitwise_x86(digits_ready: Prepared, digits: edge.Digits, tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([{"input": digits.calibration}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    path = tmp_path / "int8.onnx"
    quantize_static(digits_ready.graph.path, path, Reader(), activation_type=QuantType.QUInt8, per_channel=True)
    wanted = edge.run_onnx(path, digits.gate[:500])[0]
    engine = RemoteEngine(EmulatedDevice("qemu-aarch64"), Job(file=path, runtime=ONNXRUNTIME), timeout_s=200)
    try:
        np.testing.assert_array_equal(engine.run((digits.gate[:500],)).outputs[0], wanted)
    finally:
        engine.close()
