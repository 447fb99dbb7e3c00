"""Arm's Vela: compiles a quantized `.tflite` for an Ethos-U and estimates what it will cost."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from qpipe.errors import BuildError, RefusedError
from qpipe_mcu.options import KIB, EthosOptions

_TIMEOUT_S = 300.0
_COMPILER = "RuntimeError: Compilation failed: "
_OWN = re.compile(r"(?:ethosu\.vela\.errors\.\w+: ['\"])?Error: (.*?)['\"]?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Vela's figures for one inference."""

    cycles: int
    inference_ms: float
    sram_bytes: int
    dram_bytes: int
    npu_ops: int
    cpu_ops: int
    cpu_names: tuple[str, ...]
    """Operators that stay on the CPU, as `operator name`."""

    @property
    def npu_share(self) -> float:
        """Operators on the NPU / all operators."""
        return self.npu_ops / max(self.npu_ops + self.cpu_ops, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What Vela wrote, and its figures."""

    model: Path
    summary: Path
    layers: Path
    estimate: Estimate


def compile_for_npu(source: Path, out: Path, options: EthosOptions) -> Compiled:
    """Run Vela on a `.tflite`.

    Raises:
        RefusedError: Vela has nothing for this model.
        BuildError: it failed, ran too long, or wrote other files than expected.
    """
    start = "import sys; from ethosu.vela.vela import main; sys.exit(main())"
    command = [sys.executable, "-c", start, str(source), "--output-dir", str(out)]
    command += ["--accelerator-config", options.accelerator, "--config", "Arm/vela.ini", "--verbose-performance"]
    command += ["--system-config", options.system, "--memory-mode", options.memory]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as problem:
        raise BuildError(f"Vela ran longer than {_TIMEOUT_S:.0f} s") from problem
    model = out / f"{source.stem}_vela.tflite"
    summaries, layers = list(out.glob("*_summary_*.csv")), list(out.glob("*_per-layer.csv"))
    if done.returncode != 0 or not model.is_file() or not summaries or not layers:
        raise _failure(done.returncode, done.stdout, done.stderr)
    return Compiled(
        model=model, summary=summaries[0], layers=layers[0], estimate=_read(summaries[0], layers[0], done.stdout)
    )


def _failure(code: int, said: str, complained: str) -> BuildError:
    """Errors of Vela's own family are about the model or the options, and last; it prints most, and lets some go."""
    lines = [line for line in (said + complained).splitlines() if line.strip()]
    compiler = " ".join(complained.partition(_COMPILER)[2].split()).removeprefix("Error: ")
    own = compiler or next((found[1] for line in reversed(lines) if (found := _OWN.match(line))), "")
    if code == 1 and own and not own.startswith("Reading input file") and "bad_alloc" not in own:
        return RefusedError(f"Vela refuses this model: {own[:300]}")
    return BuildError(f"Vela failed (exit {code}): {lines[-1][:300] if lines else 'no output'}")


def _read(summary: Path, layers: Path, said: str) -> Estimate:
    try:
        with summary.open(newline="", encoding="utf-8") as lines:
            row = next(csv.DictReader(lines))
        with layers.open(newline="", encoding="utf-8") as lines:
            on_cpu = tuple(
                f"{r['Original Operator']} {r['Name']}" for r in csv.DictReader(lines) if r["Target"] == "CPU"
            )
        return Estimate(
            cycles=round(float(row["cycles_total"])),
            inference_ms=float(row["inference_time"]) * 1e3,
            sram_bytes=_bytes(row["sram_memory_used"]),
            dram_bytes=_bytes(row["dram_memory_used"]),
            npu_ops=_counted("NPU", said),
            cpu_ops=_counted("CPU", said),
            cpu_names=on_cpu,
        )
    except (KeyError, ValueError, StopIteration) as problem:
        raise BuildError(f"Vela wrote other figures than expected: {problem!r}") from problem


def _bytes(kib: str) -> int:
    return round(float(kib) * KIB)


def _counted(unit: str, said: str) -> int:
    found = re.search(rf"^{unit} operators = (\d+)", said, re.MULTILINE)
    if found is None:
        raise ValueError(f"no line `{unit} operators = …`")
    return int(found[1])
