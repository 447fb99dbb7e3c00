"""The main job as a user meets it: how light the command line is, and how long a run takes.

    QPIPE_BENCH_DATA=/path/to/data python docs/benchmarks/main_job.py

Prints a Markdown table: CPU seconds of light commands, wall and CPU seconds of whole runs, each in a fresh folder.
Exits with 1 where a figure is missed.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from machine import describe_machine, require_data

QPIPE = str(Path(sys.executable).with_name("qpipe"))
PIPELINES = Path(__file__).parents[2] / "pipelines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one command took."""

    wall_s: float
    cpu_s: float
    code: int
    output: str


def spend(folder: str, *arguments: str, program: str = QPIPE) -> Spent:
    """Run one qpipe command (or another program) in a folder."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    wall_s, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(wall_s=wall_s, cpu_s=cpu_s, code=done.returncode, output=done.stdout)


def row(what: str, found: float, unit: str, limit: float | None, note: str = "") -> bool:
    """Print one line of the table; returns whether the figure was reached."""
    reached = limit is None or found <= limit
    wanted = "–" if limit is None else f"≤ {limit:g}"
    print(f"| {what} | {found:.2f} {unit} | {wanted} | {'yes' if reached else '**no**'} | {note} |")
    return reached


def light_commands() -> list[bool]:
    """CPU seconds of commands that should answer at once; the best of five, since noise only adds."""
    found = []
    digits = str(PIPELINES / "digits" / "digits.yaml")
    with TemporaryDirectory() as folder:
        for limit, arguments in ((0.35, ("--help",)), (None, ("targets",)), (None, ("plan", digits))):
            best = min((spend(folder, *arguments) for _ in range(5)), key=lambda spent: spent.cpu_s)
            found.append(row(f"`qpipe {arguments[0]}`", best.cpu_s, "CPU s", limit, f"exit {best.code}"))
    return found


def demo() -> list[bool]:
    """The demo, first and again."""
    with TemporaryDirectory() as folder:
        first, second = spend(folder, "demo", "--json"), spend(folder, "demo", "--json")
    promoted = json.loads(first.output)["promoted"]
    return [
        row("`qpipe demo`", first.wall_s, "s wall", 20, f"exit {first.code}, promoted {len(promoted)}"),
        row("`qpipe demo` again", second.wall_s, "s wall", 4, f"exit {second.code}"),
    ]


def resnet() -> list[bool]:
    """ResNet-20: none, int8, fp16 on 4,846 rows, evaluated and gated, with and without tracking."""
    pipeline = str(PIPELINES / "resnet20.yaml")
    with TemporaryDirectory() as folder:
        bare = spend(folder, "run", pipeline, "--no-profile", "--offline", "--json")
    with TemporaryDirectory() as folder:
        tracked = spend(folder, "run", pipeline, "--no-profile", "--json")
    return [
        row("ResNet-20, 3 recipes, profile apart", bare.wall_s, "s wall", 12, f"{bare.cpu_s:.1f} CPU s"),
        row("the same with sqlite tracking: added", tracked.wall_s - bare.wall_s, "s wall", 5),
    ]


if __name__ == "__main__":
    os.environ["QPIPE_BENCH_DATA"] = str(require_data())
    print(describe_machine())
    print("\n| what | found | figure | reached | note |\n|---|---|---|---|---|")
    sys.exit(0 if all([*light_commands(), *demo(), *resnet()]) else 1)
