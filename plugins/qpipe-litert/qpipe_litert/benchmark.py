"""LiteRT's own benchmark program: a cross-check of a profile, never the profile."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from qpipe.errors import EngineError


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossCheck:
    """What `litert-benchmark` says of one file."""

    median_ms: float
    load_ms: float
    first_ms: float
    fully_delegated: bool
    runs: int


def cross_check(path: Path, *, threads: int = 1, runs: int = 50, timeout_s: float = 120.0) -> CrossCheck:
    """Run `litert-benchmark` on one row.

    Raises:
        EngineError: it is not installed beside this Python, failed, or wrote no result.
    """
    program = Path(sys.executable).parent / "litert-benchmark"
    with TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        command = [str(program), "--model", str(path), "--num_runs", str(runs), "--num_threads", str(threads)]
        try:
            done = subprocess.run(
                [*command, "--result_json", str(result)], capture_output=True, text=True, timeout=timeout_s, check=False
            )
            found = json.loads(result.read_text("utf-8"))
        except (OSError, subprocess.TimeoutExpired, ValueError) as problem:
            raise EngineError(f"litert-benchmark gave no result for {path.name}: {problem}") from problem
    if done.returncode != 0:
        raise EngineError(f"litert-benchmark failed on {path.name} (exit {done.returncode})")
    return _read(found, path)


def _read(found: object, path: Path) -> CrossCheck:
    try:
        latency = found["latency"]  # type: ignore[index] # foreign JSON: anything else is the error below
        return CrossCheck(
            median_ms=float(latency["median_ms"]),
            load_ms=float(latency["init_ms"]),
            first_ms=float(latency["warmup_first_ms"]),
            fully_delegated=bool(found["fully_accelerated"]),  # type: ignore[index] # as above
            runs=int(latency["num_runs"]),
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise EngineError(
            f"litert-benchmark wrote another result than expected for {path.name}: {problem}"
        ) from problem
