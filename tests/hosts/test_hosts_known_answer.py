"""The known answer of an emulated machine: asked once per environment, and again when anything of it changes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qpipe.errors import EngineError
from qpipe.home import home
from qpipe.hosts.emulator import EmulatedDevice
from qpipe.hosts.known_answer import KnownAnswer, require_known_answer
from qpipe.hosts.qemu_root import QEMU, qemu_root
from qpipe.hosts.remote import ONNXRUNTIME, Job
from qpipe.records.engine import Kind, Ready, Unavailable

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)
DOUBLED = KnownAnswer(inputs=ROWS, outputs=ROWS * 2, step=0.5)


class Emulated:
    """A device that is this machine, with an environment that a test may change; it counts what it is asked."""

    kind: Kind = "emulated"

    def __init__(self, folder: Path, environment: str) -> None:
        self._folder = folder / "qpipe-emulated"
        self._environment = environment
        self.asked = 0

    def environment(self) -> str:
        return self._environment

    def check(self) -> Ready | Unavailable:
        return Ready()

    def fingerprint(self) -> str:
        return "an emulated machine"

    def push(self, source: Path, name: str) -> None:
        self._folder.mkdir(exist_ok=True)
        (self._folder / name).write_bytes(source.read_bytes())

    def command(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        self.asked += 1
        return (sys.executable, str(self._folder / arguments[0]), *arguments[1:])

    def explain(self, said: str) -> str:
        return said.strip().splitlines()[-1]

    def remove(self) -> None: ...


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QPIPE_HOME", str(tmp_path / "home"))


def _ask(device: Emulated, doubling: Path, known: KnownAnswer = DOUBLED) -> str:
    return require_known_answer(device, Job(file=doubling, runtime=ONNXRUNTIME), known, timeout_s=60)


def test_it_is_asked_once_and_told_each_time(doubling: Path, tmp_path: Path) -> None:
    device = Emulated(tmp_path, "of today")
    first, second = _ask(device, doubling), _ask(device, doubling)
    assert device.asked == 1
    assert first == second
    assert first.startswith("known-answer test passed: off by 0 quantization steps (environment ")
    (stored,) = (home() / "known-answers").iterdir()
    stored.write_text("{")  # as a broken disk leaves it
    other = Emulated(tmp_path, "of tomorrow")
    assert _ask(other, doubling) != first
    assert _ask(device, doubling) == first
    assert (device.asked, other.asked) == (2, 1)


def test_a_wrong_answer_is_never_remembered(doubling: Path, tmp_path: Path) -> None:
    device = Emulated(tmp_path, "of today")
    wrong = replace(DOUBLED, outputs=ROWS * 2 + 1)
    with pytest.raises(EngineError, match="the known-answer test failed: an emulated machine is off by 2 steps"):
        _ask(device, doubling, wrong)
    assert not (home() / "known-answers").exists()


def test_the_environment_is_the_emulator_its_cpu_and_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / QEMU
    program.parent.mkdir()
    program.write_text("one version")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    wheel = qemu_root().packages / "onnxruntime" / "lib.so"
    wheel.parent.mkdir(parents=True)
    wheel.write_text("one wheel")
    seen = [EmulatedDevice("qemu-aarch64").environment()]
    wheel.with_name("lib.pyc").write_text("written by Python as it runs")
    assert EmulatedDevice("qemu-aarch64").environment() == seen[0]
    seen.append(EmulatedDevice("qemu-aarch64", cpu="max").environment())
    wheel.write_text("another wheel")
    seen.append(EmulatedDevice("qemu-aarch64").environment())
    program.write_text("another version")
    seen.append(EmulatedDevice("qemu-aarch64").environment())
    assert len(set(seen)) == len(seen)
