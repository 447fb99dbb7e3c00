"""A small network whose outputs are known: some emulated CPUs compute wrong ones without an error."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import EngineError
from qpipe.home import home
from qpipe.hosts.device import Device
from qpipe.hosts.engine import DeviceEngine
from qpipe.hosts.remote import RUNNER, Job

Array = NDArray[np.generic]
ALLOWED_STEPS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAnswer:
    """Rows and what a machine of this runtime gives for them."""

    inputs: Array
    outputs: Array
    step: float
    """One quantization step of the outputs; the largest difference that is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNetwork:
    """A network that a plugin carries, with the file of its rows and their outputs."""

    job: Job
    rows: Path


@runtime_checkable
class Named(Protocol):
    """A device whose whole environment has a digest: what it answered once holds until that changes."""

    def environment(self) -> str:
        """Digest of everything that computes there."""
        ...


def read_known_answer(path: Path, step: float = 1.0) -> KnownAnswer:
    """`inputs` and `outputs` of an `.npz` file; its `step` where it has one."""
    with np.load(path, allow_pickle=False) as stored:
        known_step = float(stored["step"]) if "step" in stored else step
        return KnownAnswer(inputs=stored["inputs"], outputs=stored["outputs"], step=known_step)


def ask_network(device: Device, network: KnownNetwork, *, timeout_s: float) -> str:
    """`require_known_answer` of the network that a plugin carries."""
    return require_known_answer(device, network.job, read_known_answer(network.rows), timeout_s=timeout_s)


def require_known_answer(device: Device, job: Job, known: KnownAnswer, *, timeout_s: float) -> str:
    """Run the network there, once per environment where the device has a digest of its own; what was found, in words.

    Raises:
        EngineError: the answer is another one.
    """
    if not isinstance(device, Named):
        return _remark(_require(device, job, known, timeout_s))
    digest = _digest(device.environment(), job, known)
    place = home() / "known-answers" / f"{digest}.json"
    steps = _remembered(place)
    if steps is None:
        steps = _require(device, job, known, timeout_s)
        _remember(place, steps)
    return f"{_remark(steps)} (environment {digest[:12]})"


def _require(device: Device, job: Job, known: KnownAnswer, timeout_s: float) -> float:
    engine = DeviceEngine(device, job, timeout_s=timeout_s)
    try:
        found = engine.run((known.inputs,))[0]
    finally:
        engine.close()
    steps = float(np.abs(found.astype(np.float64) - known.outputs.astype(np.float64)).max()) / known.step
    if not steps <= ALLOWED_STEPS + 1e-3:
        raise EngineError(
            f"the known-answer test failed: {device.fingerprint()} is off by {steps:.3g} steps",
            hint="its INT8 kernels cannot be trusted; choose another emulated CPU",
        )
    return steps


def _remark(steps: float) -> str:
    return f"known-answer test passed: off by {steps:.3g} quantization steps"


def _digest(environment: str, job: Job, known: KnownAnswer) -> str:
    """The environment, the network, the code that runs it there, and what it should answer."""
    about = json.dumps([environment, job.threads, job.kernels, known.step])
    files = (path.read_bytes() for path in (job.file, job.runtime, RUNNER, *job.beside))
    parts = (about.encode(), *files, known.inputs.tobytes(), known.outputs.tobytes())
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _remembered(place: Path) -> float | None:
    try:
        steps = float(json.loads(place.read_text("utf-8"))["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return steps if steps <= ALLOWED_STEPS + 1e-3 else None


def _remember(place: Path, steps: float) -> None:
    """Whole or not at all; where nothing can be written, the test runs each time."""
    part = place.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({"steps": steps}), "utf-8")
        part.replace(place)
