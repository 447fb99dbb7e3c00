"""Latency of quantized engines over the float engine, on the CPU: ResNet-20 int8 and MiniLM dynamic.

    QPIPE_BENCH_DATA=/path/to/data python docs/benchmarks/latency.py [--batch 1 8] [--processes 5]

Prints a Markdown table. Exits with 1 where an upper bound is over its figure, or a run drifted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from qpipe_onnxruntime.backend import OnnxRuntimeBackend

from qpipe.data import open_role
from qpipe.engines import read_engine, write_engine
from qpipe.gates.statistics.latency import percentile_bounds
from qpipe.measure.drift import drifted
from qpipe.measure.feeds import digest_outputs, make_feeds
from qpipe.measure.host import conditions, measuring
from qpipe.measure.profile import summarize
from qpipe.measure.samples import Samples, load_samples, merge_samples, save_samples
from qpipe.measure.timing import time_sessions
from qpipe.models import read_model
from qpipe.plugins.backend import Backend
from qpipe.prepare import builtin_recipe, prepare
from qpipe.records.cell import Timing
from qpipe.records.codec import decode, encode
from qpipe.records.data import DataSpec, Preprocess, RoleSpec
from qpipe.records.evidence import Profile, Ratio
from qpipe.records.model import Model
from qpipe.records.target import Target
from qpipe.testing.progress import Silent

BACKEND = OnnxRuntimeBackend()
TARGET = Target(name="cpu-local", backend="onnxruntime")
TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model, one recipe, and the ratio to reach at batch size 1."""

    model: str
    recipe: str
    figure: float
    data: DataSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one timed process does."""

    engines: tuple[tuple[str, Path], ...]
    digests: tuple[tuple[str, str], ...]
    data: DataSpec
    model: Model
    sizes: tuple[int, ...]
    timing: Timing
    number: int
    samples: Path


def cases(folder: Path) -> tuple[Case, ...]:
    """The two models with their data."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = DataSpec(
        inputs=(("image", "input"),),
        label="label",
        preprocess=(Preprocess(column="image", scale=1 / 255, mean=mean, std=std),),
        roles=_roles(folder, "cifar10"),
    )
    sentences = DataSpec(
        inputs=(("input_ids", "input_ids"), ("attention_mask", "attention_mask")),
        label="score",
        preprocess=(),
        roles=_roles(folder, "stsb"),
        trim="attention_mask",
    )
    return (
        Case(model="resnet20-cifar10", recipe="int8", figure=0.55, data=images),
        Case(model="minilm-l6-sts", recipe="dynamic", figure=0.50, data=sentences),
    )


def _roles(folder: Path, name: str) -> tuple[RoleSpec, ...]:
    return (
        RoleSpec(role="calibration", npz=folder / f"{name}-calibration.npz", samples=256),
        RoleSpec(role="gate", npz=folder / f"{name}-gate.npz"),
    )


def build(
    case: Case, model: Model, recipe: str, folder: Path, *, backend: Backend = BACKEND, target: Target = TARGET
) -> Path:
    """The engine folder of one recipe."""
    scheme = backend.scheme(target)
    calibration = open_role(case.data, "calibration", model.signature)
    prepared = prepare(
        model, builtin_recipe(recipe, scheme), scheme, calibration.batches, folder / "stages", None, Silent()
    )
    workdir = folder / "engine"
    workdir.mkdir(parents=True)
    built = backend.build(prepared, target, workdir, Silent())
    write_engine(
        workdir,
        built,
        model=model.name,
        model_digest=model.digest,
        recipe=recipe,
        target=target.name,
        backend=backend.name,
        signature=model.signature,
    )
    return workdir


def time_here(job: Job) -> None:
    """Body of one timed process."""
    role = open_role(job.data, "gate", job.model.signature)
    feeds = make_feeds(role.batches(), job.sizes, job.model.signature)
    sessions, load_ms = {}, {}
    for name, folder in job.engines:
        begin = time.perf_counter()
        sessions[name] = BACKEND.open(read_engine(folder), TARGET)
        load_ms[name] = (time.perf_counter() - begin) * 1e3
    found = time_sessions(
        sessions,
        feeds,
        job.timing,
        threads=TARGET.threads,
        seed=job.number,
        load_ms=load_ms,
        expected=dict(job.digests),
    )
    save_samples(job.samples, found)


def profile(case: Case, folder: Path, sizes: tuple[int, ...], timing: Timing) -> Profile:
    """Build both engines, time them in processes of their own, and summarize; remeasured where the machine drifts."""
    path = Path(os.environ["QPIPE_BENCH_DATA"]) / f"{case.model}.onnx"
    model = read_model(path, name=case.model, origin=str(path))
    engines = tuple((name, build(case, model, name, folder / name)) for name in ("none", case.recipe))
    role = open_role(case.data, "gate", model.signature)
    feeds = make_feeds(role.batches(), sizes, model.signature)
    digests = tuple((name, digest_outputs(BACKEND.open(read_engine(at), TARGET), feeds)) for name, at in engines)
    job = Job(
        engines=engines,
        digests=digests,
        data=case.data,
        model=model,
        sizes=sizes,
        timing=timing,
        number=0,
        samples=folder / "samples.npz",
    )
    voided = 0
    samples = _timed(job, timing.processes)
    while drifted(samples, "none") and voided + 1 < TRIES:
        voided += 1
        samples = _timed(job, timing.processes)
    return summarize(
        samples,
        baseline="none",
        threads=TARGET.threads,
        conditions=(*conditions(TARGET.isa), *BACKEND.check(TARGET).toolchain),
        voided=voided,
        bounds=percentile_bounds,
    )[case.recipe]


def _timed(job: Job, processes: int) -> Samples:
    """Samples of all processes, one after the other."""
    parts = []
    for number in range(processes):
        path = job.samples.with_suffix(".json")
        path.write_text(encode(replace(job, number=number)))
        subprocess.run([sys.executable, __file__, "--child", str(path)], check=True)
        parts.append(load_samples(job.samples))
    return merge_samples(parts)


def show(case: Case, found: Profile) -> bool:
    """Print the rows of one case; whether its figure is reached."""
    for batch in found.batches:
        own, base = dict(batch.latency_ms), dict(batch.baseline_ms)
        cells = (
            f"{case.model} {case.recipe}",
            str(batch.batch),
            _interval(batch.ratio),
            _interval(batch.cpu_ratio),
            *(f"{own[name].value:.3f} / {base[name].value:.3f}" for name in ("p50", "p95")),
            str(batch.samples),
            f"≤ {case.figure}" if batch.batch == 1 else "–",
            f"{'DRIFTED' if found.drifted else 'no'} ({found.voided} voided)",
            "yes" if found.outputs_match else "NO",
        )
        print(f"| {' | '.join(cells)} |")
    first = found.batches[0].ratio
    return first is not None and first.high <= case.figure and found.outputs_match and not found.drifted


def _interval(ratio: Ratio | None) -> str:
    return f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]" if ratio else "no interval"


def main() -> int:
    """Measure both cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        time_here(decode(Job, args.child.read_text()))
        return 0
    if "QPIPE_BENCH_DATA" not in os.environ:
        parser.error("set QPIPE_BENCH_DATA to the folder with the models and data")
    heads = ("model and recipe", "batch", "wall ratio [90 %]", "CPU ratio [90 %]", "p50 ms engine / float", "p95 ms")
    print(f"| {' | '.join((*heads, 'samples', 'figure', 'drift', 'same outputs'))} |\n|{'---|' * (len(heads) + 4)}")
    reached = []
    with TemporaryDirectory() as folder, measuring(lambda text: print(text, file=sys.stderr)):
        for case in cases(Path(os.environ["QPIPE_BENCH_DATA"])):
            found = profile(case, Path(folder) / case.model, tuple(args.batch), Timing(processes=args.processes))
            reached.append(show(case, found))
    print("\n" + "\n".join(f"- {name}: {value}" for name, value in found.conditions))
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
