"""The session of a `FakeBackend`: true outputs, then the script's lies."""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qpipe.errors import EngineError
from qpipe.records.recipe import REFERENCE
from qpipe.testing.script import Script, act

if TYPE_CHECKING:
    from qpipe.plugins.backend import Tensors
    from qpipe.records.engine import Engine


class FakeSession:
    """Rows are told apart by their bytes: what happens to one does not depend on its batch."""

    def __init__(self, engine: Engine, script: Script, *, threads: int) -> None:
        import onnxruntime as ort

        from qpipe.measure.ort import OrtSession, cpu_options

        settings = cpu_options(threads)
        inner = ort.InferenceSession(str(engine.main_file), settings, providers=["CPUExecutionProvider"])
        self._inner = OrtSession(inner, engine.signature)
        self._script = script
        self._quantized = engine.recipe != REFERENCE
        self._runs = 0
        self._last: dict[str, NDArray[np.generic]] = {}
        self.kind = script.kind
        self.signature = engine.signature

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name.

        Raises:
            EngineError: the session is closed, an input is wrong, or the script says so.
        """
        act(self._script.run, EngineError("the fake backend refuses to run", hint="the target's options say so"))
        until = time.perf_counter() + self._slow_s
        rows = inputs[self.signature.inputs[0].name] if inputs else np.zeros(0)
        if self._script.batch_one_only and len(rows) > 1:
            raise EngineError(f"a batch of {len(rows)} rows; this engine takes one")
        outputs = dict(self._inner.run(inputs))
        if self._quantized or self._script.lies == "all":
            self._runs += 1
            outputs = {name: self._lie(values, _chances(rows)) for name, values in outputs.items()}
        if self._script.writes_inputs:
            rows.setflags(write=True)
            rows[...] = 0
        while time.perf_counter() < until:  # busy, so that CPU time tells the same as wall time
            pass
        return self._reused(outputs) if self._script.reuses_outputs else outputs

    def close(self) -> None:
        """Later runs raise."""
        self._inner.close()

    @property
    def _slow_s(self) -> float:
        return (self._script.slow_ms if self._quantized else self._script.float_slow_ms) / 1000

    def _lie(self, values: NDArray[np.generic], chances: NDArray[np.float64]) -> NDArray[np.generic]:
        script = self._script
        if values.ndim == 0 or len(values) != len(chances) or not np.issubdtype(values.dtype, np.floating):
            return values
        lied = np.array(values)
        shape = (-1,) + (1,) * (values.ndim - 1)
        if script.noise:
            lied *= (1 + script.noise * np.sin(1e6 * chances)).reshape(shape).astype(values.dtype)
        wrong = chances < script.flip
        lied[wrong] = np.roll(lied[wrong], 1, axis=-1) if values.ndim > 1 and values.shape[-1] > 1 else -lied[wrong] - 1
        lied[(1 - chances) < script.nan] = np.nan
        if script.lie_after_runs and self._runs >= script.lie_after_runs:
            lied = lied[..., ::-1] + 1
        return lied.astype(values.dtype)

    def _reused(self, outputs: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        for name, values in outputs.items():
            kept = self._last.get(name)
            if kept is None or kept.shape != values.shape:
                self._last[name] = np.array(values)
            else:
                kept[...] = values
        return self._last


def _chances(rows: NDArray[np.generic]) -> NDArray[np.float64]:
    """A number in [0, 1) for each row, from its bytes alone."""
    return np.asarray([zlib.crc32(np.ascontiguousarray(row).tobytes()) / 2**32 for row in rows], np.float64)
