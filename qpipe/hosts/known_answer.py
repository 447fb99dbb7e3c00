"""A small network whose outputs are known: some emulated CPUs compute wrong ones without an error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import EngineError
from qpipe.hosts.device import Device
from qpipe.hosts.engine import DeviceEngine
from qpipe.hosts.remote import Job

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAnswer:
    """Rows and what a machine of this runtime gives for them."""

    inputs: Array
    outputs: Array
    step: float
    """One quantization step of the outputs; the largest difference that is allowed."""


def read_known_answer(path: Path, step: float = 1.0) -> KnownAnswer:
    """`inputs` and `outputs` of an `.npz` file; its `step` where it has one."""
    with np.load(path, allow_pickle=False) as stored:
        known_step = float(stored["step"]) if "step" in stored else step
        return KnownAnswer(inputs=stored["inputs"], outputs=stored["outputs"], step=known_step)


def require_known_answer(device: Device, job: Job, known: KnownAnswer, *, timeout_s: float) -> None:
    """Run the network there.

    Raises:
        EngineError: the answer is another one.
    """
    engine = DeviceEngine(device, job, timeout_s=timeout_s)
    try:
        found = engine.run((known.inputs,))[0]
    finally:
        engine.close()
    worst = float(np.abs(found.astype(np.float64) - known.outputs.astype(np.float64)).max()) / known.step
    if not worst <= 1.0 + 1e-3:
        raise EngineError(
            f"the known-answer test failed: {device.fingerprint()} is off by {worst:.3g} steps",
            hint="its INT8 kernels cannot be trusted; choose another emulated CPU",
        )
