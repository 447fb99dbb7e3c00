"""What every benchmark says about where it ran, and where its data is."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from qpipe_onnxruntime.machine import choose_scheme

from qpipe.measure.cpu import read_cpu
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target

PACKAGES = ("qpipe-core", "onnxruntime", "onnx", "mlflow", "numpy")


def require_data() -> Path:
    """The folder of the real models, from QPIPE_BENCH_DATA; exits with 2 where it is not set."""
    folder = os.environ.get("QPIPE_BENCH_DATA", "")
    if not folder or not Path(folder).is_dir():
        sys.exit("QPIPE_BENCH_DATA is not set to a folder: this benchmark needs ResNet-20 and MiniLM with their data")
    return Path(folder).resolve()


def own_scheme() -> Scheme:
    """The arithmetic of onnxruntime on this processor."""
    return choose_scheme(Target(name="cpu-local", backend="onnxruntime"), read_cpu())


def describe_machine() -> str:
    """Date, processor with its integer ISA, load, versions, commit."""
    cpu = read_cpu()
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {cpu.count} × {cpu.model} ({' '.join(cpu.isa)}), "
        f"load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, {versions}, commit {git.stdout.strip() or 'unknown'}"
    )
