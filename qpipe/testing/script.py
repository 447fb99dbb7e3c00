"""What a `FakeBackend` does and which lies it tells: the `options:` of its targets."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from qpipe.errors import QpipeError
from qpipe.records.engine import Kind

Deed = Literal["ok", "refuse", "raise", "crash", "hang", "eat"]
"""`refuse` raises the right error, `raise` a wrong one, `crash` is a segfault, `eat` takes all memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Everything is honest by default. Lies about outputs hold for quantized engines, or for all with `lies: all`."""

    build: Deed = "ok"
    open: Deed = "ok"
    run: Deed = "ok"
    build_unavailable: str = ""
    """Reason why engines cannot be built here."""
    run_unavailable: str = ""
    impossible: bool = False
    """Whether no machine could ever build it."""
    lies: Literal["quantized", "all"] = "quantized"
    flip: float = 0.0
    """Share of rows whose answer is wrong: chosen by the row's bytes, so that batches do not matter."""
    nan: float = 0.0
    """Share of rows with NaN."""
    noise: float = 0.0
    """Relative noise on every output, by the row's bytes."""
    lie_after_runs: int = 0
    """From this run of a session on, outputs differ from those before: 0 is never."""
    slow_ms: float = 0.0
    """Busy time added to every run."""
    float_slow_ms: float = 0.0
    """The same for engines that are not quantized, so that a quantized one can be faster."""
    weight_bytes: int = 0
    """Size of a second file of quantized engines."""
    undeclared: bool = False
    """Leaves a file behind that it does not list."""
    writes_inputs: bool = False
    reuses_outputs: bool = False
    batch_one_only: bool = False
    """Fails on batches of more rows."""
    kind: Kind = "measured"
    integer_nodes: int = 1
    """Quantizable nodes said to run as integer kernels."""
    float_nodes: int = 0
    elsewhere_nodes: int = 0
    facts: Mapping[str, float] = field(default_factory=dict)
    version: str = "1.0"
    """Version of its toolchain."""
    fingerprint: str = "fake device"


def act(deed: Deed, refusal: QpipeError) -> None:
    """Do what the script says, if it is anything."""
    if deed == "refuse":
        raise refusal
    if deed == "raise":
        raise ZeroDivisionError("a bug of this backend")
    if deed == "crash":
        import ctypes

        ctypes.string_at(0)
    if deed == "hang":
        time.sleep(3600)
    hoard: list[bytes] = []
    while deed == "eat":
        hoard.append(os.urandom(1 << 20) * 16)
        time.sleep(0.005)
