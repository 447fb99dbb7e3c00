"""How far a child is: JSON lines through a pipe. Nothing heavy is imported here: every child does."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass

PERIOD_S = 0.25
"""`advance` writes at most this often, so that it may stand in a tight loop: each line wakes the parent, whose look at
it costs as much CPU as some batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressEvent:
    """The state of a child's current step."""

    step: str
    done: int
    total: int | None


class PipeProgress:
    """The `Progress` of a child: writes its state as JSON lines."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._step = ""
        self._done = 0
        self._total: int | None = None
        self._written = (0.0, 0)
        """When the last line was written, and its `done`."""

    def step(self, name: str, *, total: int | None = None) -> None:
        """A new step begins."""
        self.flush()
        self._step, self._done, self._total = name, 0, total
        self._write()

    def advance(self, amount: int = 1) -> None:
        """Part of the current step is done."""
        self._done += amount
        if time.monotonic() - self._written[0] >= PERIOD_S:
            self._write()

    def flush(self) -> None:
        """Write what `advance` kept back."""
        if self._step and self._written[1] != self._done:
            self._write()

    def _write(self) -> None:
        line = json.dumps([self._step, self._done, self._total]) + "\n"
        data = line.encode()
        while data:
            data = data[os.write(self._descriptor, data) :]
        self._written = (time.monotonic(), self._done)


class Lines:
    """Bytes of a pipe, cut into progress events."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> tuple[ProgressEvent, ...]:
        """The events that are complete with these bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return tuple(_event(line) for line in lines)


def _event(line: bytes) -> ProgressEvent:
    step, done, total = json.loads(line)
    return ProgressEvent(step=step, done=done, total=total)
