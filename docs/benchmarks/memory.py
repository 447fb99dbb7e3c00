"""Peak memory of a quantize call on the 224×224 depthwise network, for every range method, from one pass each.

QPIPE_BENCH_DATA=/folder/of/rows python docs/benchmarks/memory.py [--rows 64 4096]

For each number of rows one process folds the graph and calibrates, rows streamed in batches of 16. All range methods
read the statistics of that pass, so the process then forks once for each of them, and the child plans, corrects biases,
renders and saves. A method's peak is the larger of the pass's and its child's own (a child starts with what lies in
memory at the fork): what one process has that makes the whole call with this method. Exits with 1 where a figure is
missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
from machine import describe_machine, require_data
from quantization import Feed, calibration, depthwise

from qpipe.execute.children.group import peak_resident_bytes
from qpipe.quant.calibration.statistics import Statistics
from qpipe.quant.ranges import METHODS
from qpipe.records.quantization import RangeMethod

MOST_MB, MOST_GROWTH = 450, 0.05


def peak_mb() -> float:
    """Peak resident set of this process so far, MB."""
    return peak_resident_bytes(os.getpid()) / 2**20


def one_pass(source: Path, rows: int) -> None:
    """Calibrate on so many rows, then finish by every method in a fork; figures as one JSON line each."""
    import onnxruntime  # noqa: F401 - imports are not part of the call

    from qpipe.quant.calibration.calibrate import calibrate
    from qpipe.quant.calibration.observed import observed_tensors
    from qpipe.quant.check import ROWS, check_same
    from qpipe.quant.fold import fold
    from qpipe.quant.graph import open_graph
    from qpipe.quant.microbatches import first_rows
    from qpipe.quant.schemes import ORT_X86_VNNI

    def batches() -> Iterator[Feed]:
        return calibration("depthwise", rows)

    begun = time.process_time()
    model = open_graph(source)
    before = model.clone()
    fold(model)
    check_same(before, model, first_rows(before, batches(), ROWS))
    statistics = calibrate(model, batches(), observed_tensors(model.graph, ORT_X86_VNNI))
    print(json.dumps({"part": "pass", "cpu_s": time.process_time() - begun, "rss_mb": peak_mb()}), flush=True)
    for method in METHODS:
        child = os.fork()
        if child == 0:
            finish(model, statistics, method, source.with_name("m.onnx"))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"{method}: the child ended with {os.waitstatus_to_exitcode(status)}")


def finish(model: ir.Model, statistics: Statistics, method: RangeMethod, target: Path) -> None:
    """What comes after the pass, as the recipe `int8` does it."""
    from qpipe.quant.corrections.bias import correct_bias
    from qpipe.quant.corrections.smooth import smooth
    from qpipe.quant.graph import save_graph
    from qpipe.quant.options import QuantOptions
    from qpipe.quant.plan import make_plan
    from qpipe.quant.rendering.render import render
    from qpipe.quant.schemes import ORT_X86_VNNI

    begun = time.process_time()
    _, statistics = smooth(model, statistics, ORT_X86_VNNI)
    plan = make_plan(model, statistics, ORT_X86_VNNI, QuantOptions(ranges=method))
    correct_bias(model, plan, statistics)
    save_graph(render(model, plan), target)
    print(json.dumps({"part": method, "cpu_s": time.process_time() - begun, "rss_mb": peak_mb()}), flush=True)


def measured(source: Path, rows: int) -> dict[str, dict[str, float]]:
    """`one_pass` in a process of its own; its figures by part."""
    command = [sys.executable, "-W", "ignore", __file__, "--pass", str(source), str(rows)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line.pop("part"): line for line in lines}


def table(source: Path, counts: list[int]) -> bool:
    """Print a line for each method and number of rows; whether both figures are reached."""
    print("| ranges | rows | pass, MB | after it, MB | peak, MB | growth | CPU s: pass + rest |")
    print("|---|---|---|---|---|---|---|")
    first: dict[str, float] = {}
    reached = True
    for rows in counts:
        found = measured(source, rows)
        whole = found["pass"]
        for method in METHODS:
            own = found[method]
            peak = max(whole["rss_mb"], own["rss_mb"])
            growth = peak / first.setdefault(method, peak) - 1
            reached = reached and peak <= MOST_MB and growth < MOST_GROWTH
            memory = f"{whole['rss_mb']:.0f} | {own['rss_mb']:.0f} | {peak:.0f} | {100 * growth:+.1f} %"
            print(f"| {method} | {rows} | {memory} | {whole['cpu_s']:.0f} + {own['cpu_s']:.1f} |", flush=True)
    return reached


def main() -> int:
    """Parse the command line and measure; 1 where a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 4096])
    parser.add_argument("--pass", nargs=2, dest="one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    require_data()
    if options.one:
        one_pass(Path(options.one[0]), int(options.one[1]))
        return 0
    print(describe_machine() + "\n")
    with tempfile.TemporaryDirectory() as text:
        source = Path(text) / "depthwise.onnx"
        depthwise(source)
        reached = table(source, options.rows)
    print(
        f"\nat most {MOST_MB} MB and less than {100 * MOST_GROWTH:.0f} % growth: {'reached' if reached else 'MISSED'}"
    )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
