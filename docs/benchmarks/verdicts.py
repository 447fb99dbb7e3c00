"""Verdicts on real models, checked by a second computation that shares no code with the first.

    QPIPE_BENCH_DATA=/path/to/data python docs/benchmarks/verdicts.py [--no-profile]

Runs `pipelines/resnet20.yaml` and `minilm.yaml` through the command line into a fresh sqlite MLflow. Then it computes
everything that the gates decided from again, with numpy, scipy, statsmodels and onnxruntime alone: predictions of the
float model and of the engine's file, the paired difference with its bounds, sizes, the speed-up from raw samples, the
verdicts. It compares that with the JSON of the run, with the metrics in MLflow and with the promoted versions, and
prints a Markdown table. Exits with 1 where anything differs.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import yaml
from machine import describe_machine, require_data
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from recount import (
    ALPHA,
    ALPHA_FAIL,
    BATCH,
    cosine_level,
    feeds,
    integer_share,
    linked_groups,
    paired_shares,
    paired_spearman,
    predict,
    row_cosine,
    speedup,
)
from scipy import stats
from statsmodels.stats.multitest import multipletests

QPIPE = str(Path(sys.executable).with_name("qpipe"))
PIPELINES = Path(__file__).parents[2] / "pipelines"


@dataclass(slots=True, kw_only=True)
class Table:
    """Lines of the comparison, and whether all of them agreed."""

    equal: bool = True
    lines: list[str] = field(default_factory=list)

    def close(self, what: str, first: float | None, second: float | None, tolerance: float = 1e-9) -> None:
        """Compare two numbers; both None is equal too."""
        same = first == second if first is None or second is None else abs(first - second) <= tolerance
        self._line(what, _text(first), _text(second), same)

    def same(self, what: str, first: object, second: object) -> None:
        """Compare two values exactly."""
        self._line(what, str(first), str(second), first == second)

    def _line(self, what: str, first: str, second: str, same: bool) -> None:
        self.equal = self.equal and same
        self.lines.append(f"| {what} | {first} | {second} | {'yes' if same else '**no**'} |")


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.9g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One judged cell with everything that the second computation reads: files alone."""

    pipeline: dict[str, object]
    cell: dict[str, object]
    rows: dict[str, np.ndarray]
    reference: np.ndarray
    """First output of the float model."""
    engine: np.ndarray
    float_bytes: int
    """Of the float engine's files."""
    samples: Path | None

    @property
    def correct(self) -> tuple[np.ndarray, np.ndarray]:
        """Right rows of engine and float model."""
        ours, theirs = (one.argmax(axis=1) == self.rows["label"] for one in (self.engine, self.reference))
        return ours, theirs

    @property
    def cosines(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each pair: the cosine by the engine and by the float model, and the score."""
        pair = self.rows["pair"]
        members = [np.flatnonzero(pair == one) for one in dict.fromkeys(pair.tolist())]
        first, second = np.array(members).T
        ours, theirs = (row_cosine(one[first], one[second]) for one in (self.engine, self.reference))
        return ours, theirs, self.rows["score"][first].astype(float)


def metric_values(case: Case) -> tuple[float, float]:
    """The task's metric of engine and float model."""
    if case.pipeline["task"] == "classification":
        ours, theirs = case.correct
        return float(ours.mean()), float(theirs.mean())
    ours, theirs, scores = case.cosines
    return float(stats.spearmanr(ours, scores).statistic), float(stats.spearmanr(theirs, scores).statistic)


def check_gate(name: str, asked: dict[str, object], case: Case, table: Table, label: str) -> str:
    """Compare one gate's numbers and verdict; returns the verdict of the second computation."""
    found = case.cell["gates"][name]  # type: ignore[index]  # as JSON gives it
    what = f"{label} {name}"
    match name:
        case "quality" if case.pipeline["task"] == "classification":
            second, limit = paired_shares(*case.correct, float(asked["margin"])), -float(asked["margin"])
        case "quality":
            second, limit = paired_spearman(*case.cosines, float(asked["margin"])), -float(asked["margin"])
        case "agreement":
            first = np.unique(case.rows["pair"], return_index=True)[1]
            groups = linked_groups(case.rows["pair"], case.rows["input_ids"], case.rows["attention_mask"])[first]
            limit = float(asked["at_least"])
            second = cosine_level(row_cosine(case.engine, case.reference)[first], groups, limit)
        case "slices":
            return check_slices(asked, case, table, what)
        case "speedup":
            return check_speedup(asked, case, table, what)
        case _:
            verdict = exact(name, asked, case, table, what)
            table.same(f"{what}: verdict", found["verdict"], verdict)
            return verdict
    table.same(f"{what}: n", found["n"], second.n)
    table.close(f"{what}: observed", found["observed"], second.observed)
    table.close(f"{what}: lower bound", found["low"], second.low, second.tolerance)
    table.close(f"{what}: upper bound", found["high"], second.high, second.tolerance)
    table.same(f"{what}: alpha", found["alpha"], ALPHA)
    table.same(f"{what}: verdict", found["verdict"], second.verdict(limit))
    return second.verdict(limit)


def check_slices(asked: dict[str, object], case: Case, table: Table, what: str) -> str:
    """Each slice by itself; FAIL of one by Holm's procedure."""
    margin, column = float(asked["margin"]), case.rows[str(asked["by"])].astype(str)
    ours, theirs = case.correct
    names = sorted(set(column.tolist()))
    found = {name: paired_shares(ours[column == name], theirs[column == name], margin) for name in names}
    rejected = multipletests([one.p_fail for one in found.values()], ALPHA_FAIL, method="holm")[0]
    verdicts = {}
    for (name, one), reject in zip(found.items(), rejected, strict=True):
        verdict = one.verdict(-margin)
        verdicts[name] = "INCONCLUSIVE" if verdict == "FAIL" and not reject else verdict
    said = {one["name"]: one for one in case.cell["gates"]["slices"]["slices"]}  # type: ignore[index]
    table.same(f"{what}: names", sorted(said), names)
    for name, one in found.items():
        table.close(f"{what} {name}: observed, n {one.n}", said[name]["observed"], one.observed)
        table.close(f"{what} {name}: lower bound", said[name]["low"], one.low)
        table.close(f"{what} {name}: upper bound", said[name]["high"], one.high)
    verdict = next((one for one in ("FAIL", "INCONCLUSIVE") if one in verdicts.values()), "PASS")
    table.same(f"{what}: verdict", case.cell["gates"]["slices"]["verdict"], verdict)  # type: ignore[index]
    return verdict


def check_speedup(asked: dict[str, object], case: Case, table: Table, what: str) -> str:
    """From the raw samples of the evidence; INCONCLUSIVE where the machine drifted or nothing was timed."""
    said = case.cell["gates"]["speedup"]  # type: ignore[index]
    found = "not measured" if case.samples is None else speedup(case.samples)
    if isinstance(found, str):
        table.same(f"{what}: verdict ({found})", said["verdict"], "INCONCLUSIVE")
        return "INCONCLUSIVE"
    table.close(f"{what}: observed", said["observed"], found.observed)
    table.close(f"{what}: lower bound", said["low"], found.low)
    table.close(f"{what}: upper bound", said["high"], found.high)
    verdict = found.verdict(float(asked["at_least"]))
    table.same(f"{what}: verdict", said["verdict"], verdict)
    return verdict


def exact(name: str, asked: dict[str, object], case: Case, table: Table, what: str) -> str:
    """Gates without an interval: sizes on disk, values that are not finite, kernels of the optimized graph."""
    said = case.cell["gates"][name]  # type: ignore[index]
    if name == "size":
        ratio = _bytes(case.cell) / case.float_bytes
        table.close(f"{what}: ratio", said["observed"], ratio)
        return "PASS" if ratio <= float(asked["at_most_ratio"]) else "FAIL"
    if name == "finite":
        bad = int((~np.isfinite(case.engine)).any(axis=1).sum())
        table.same(f"{what}: rows", said["observed"], float(bad))
        return "FAIL" if bad else "PASS"
    share = integer_share(Path(case.cell["engine"]["path"]) / case.cell["engine"]["files"][0])  # type: ignore[index]
    table.close(f"{what}: share in integer", said["observed"], share)
    return "PASS" if share >= float(asked["at_least_integer_share"]) else "FAIL"


def _bytes(cell: dict[str, object]) -> int:
    """Bytes on disk of all files of an engine."""
    return sum((Path(cell["engine"]["path"]) / file).stat().st_size for file in cell["engine"]["files"])  # type: ignore[index]


def check_cell(case: Case, asked: dict[str, dict[str, object]], table: Table, label: str) -> str:
    """All gates of one cell and their overall verdict."""
    ours, theirs = metric_values(case)
    name = "accuracy" if case.pipeline["task"] == "classification" else "spearman"
    metrics = case.cell["metrics"]
    table.close(f"{label} {name} of the engine", metrics["engine"][name], ours)  # type: ignore[index]
    table.close(f"{label} {name} of the float model", metrics["reference"][name], theirs)  # type: ignore[index]
    verdicts = {
        gate: check_gate(gate, keys, case, table, label)
        for gate, keys in asked.items()
        if case.cell["recipe"] in keys.get("recipes", [case.cell["recipe"]])  # type: ignore[operator]
    }
    table.same(f"{label} gates", sorted(case.cell["gates"]), sorted(verdicts))  # type: ignore[call-overload]
    required = [verdict for gate, verdict in verdicts.items() if asked[gate].get("required", True)]
    overall = next((one for one in ("FAIL", "INCONCLUSIVE") if one in required), "PASS")
    table.same(f"{label}: verdict", case.cell["verdict"], overall)
    return overall


def check_mlflow(client: MlflowClient, uri: str, run: dict[str, object], cell: dict[str, object], table: Table) -> None:
    """The metrics of the cell's nested run are those of the JSON."""
    nested = _nested(client, run, cell)
    label = f"{cell['model']}/{cell['recipe']} in MLflow"
    logged = nested.data.metrics
    wanted = {name: value for name, value in cell["metrics"]["engine"].items() if name in ("accuracy", "spearman")}  # type: ignore[index]
    wanted |= {
        f"gates/{gate}/{part}": found[part]
        for gate, found in cell["gates"].items()  # type: ignore[attr-defined]
        for part in ("observed", "low", "high", "limit")
        if found[part] is not None
    }
    missing = {name: value for name, value in wanted.items() if logged.get(name) != value}
    table.same(f"{label}: of {len(wanted)} metrics differ", missing, {})
    table.same(f"{label}: decision", nested.data.tags.get("qpipe.decision"), cell["verdict"])
    text = Path(
        download_artifacts(run_id=str(run["mlflow_run_id"]), artifact_path="result.json", tracking_uri=uri)
    ).read_text()
    stored = next(one["gates"] for one in json.loads(text)["cells"] if one["key"] == cell["key"])
    differing = [gate for gate, said in cell["gates"].items() if stored.get(gate) != said]  # type: ignore[attr-defined]
    table.same(f"{label}: gates of result.json that differ", differing, [])


def check_promoted(
    client: MlflowClient, run: dict[str, object], passed: dict[str, dict[str, object]], table: Table
) -> None:
    """Exactly the cells that passed are promoted, and the versions hold the files that were evaluated."""
    said = {one["model"]: one for one in run["promoted"]}  # type: ignore[attr-defined]
    table.same("promoted", sorted(said), sorted(passed))
    for name, cell in passed.items():
        version = client.get_model_version_by_alias(name, "champion")
        files = {file: _sha256(Path(cell["engine"]["path"]) / file) for file in cell["engine"]["files"]}  # type: ignore[index]
        model = client.get_logged_model(version.source.removeprefix("models:/"))
        place = f"{model.artifact_location}/data/package/engine"
        with TemporaryDirectory() as folder:
            there = Path(download_artifacts(artifact_uri=place, dst_path=folder))
            table.same(
                f"{name}@champion (version {version.version}): files of the engine",
                {file: _sha256(there / file)[:12] for file in files},
                {file: digest[:12] for file, digest in files.items()},
            )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_pipeline(name: str, extra: list[str], table: Table) -> None:
    """One pipeline in a fresh folder, and everything of it a second time."""
    file = PIPELINES / f"{name}.yaml"
    pipeline = yaml.safe_load(os.path.expandvars(file.read_text()))
    hidden = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "QPIPE_STORE")
    clean = {key: value for key, value in os.environ.items() if key not in hidden}
    with TemporaryDirectory() as folder:
        command = [QPIPE, "run", str(file), "--json", *extra]
        done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
        if not done.stdout:
            sys.exit(f"{name}: {done.stderr}")
        run = json.loads(done.stdout)
        table.same(f"{name}: exit code", run["exit_code"], done.returncode)
        check_run(pipeline, run, folder, table)


def check_run(pipeline: dict[str, object], run: dict[str, object], folder: str, table: Table) -> None:
    """A finished run and what it left in its folder."""
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri)
    with np.load(pipeline["data"]["gate"]["npz"]) as stored:  # type: ignore[index]
        rows = {column: stored[column] for column in stored.files}
    model = Path(pipeline["model"]["path"])  # type: ignore[index]
    passed = {}
    for cell in run["cells"]:  # type: ignore[attr-defined]
        label = f"{cell['model']}/{cell['recipe']}"
        table.same(f"{label}: status", f"{cell['status']} {cell['reason']}".strip(), "ok")
        if cell["recipe"] == "none" or cell["engine"] is None:
            continue
        # An engine whose answers depend on the batch is judged as it is served, row by row.
        alone = any(remark["kind"] == "neighbours" for remark in cell["lint"])
        batches = feeds(rows, pipeline["data"], 1 if alone else BATCH)  # type: ignore[arg-type]
        case = Case(
            pipeline=pipeline,
            cell=cell,
            rows=rows,
            reference=predict(model, batches),
            engine=predict(Path(cell["engine"]["path"]) / cell["engine"]["files"][0], batches),
            float_bytes=_bytes(next(one for one in run["cells"] if one["recipe"] == "none")),  # type: ignore[attr-defined]
            samples=_samples(client, run, cell, folder),
        )
        if check_cell(case, pipeline["gates"], table, label) == "PASS":  # type: ignore[arg-type]
            promoted = pipeline["promote"]["model"]  # type: ignore[index]
            passed[promoted.format(model=cell["model"], recipe=cell["recipe"], target=cell["target"])] = cell
        check_mlflow(client, uri, run, cell, table)
    check_promoted(client, run, passed, table)


def _nested(client: MlflowClient, run: dict[str, object], cell: dict[str, object]) -> Run:
    """The cell's own run in MLflow."""
    experiment = client.get_run(str(run["mlflow_run_id"])).info.experiment_id
    (found,) = client.search_runs([experiment], f"tags.`qpipe.cell_key` = '{cell['key']}'")
    return found


def _samples(client: MlflowClient, run: dict[str, object], cell: dict[str, object], folder: str) -> Path | None:
    """Raw times of the cell, from the evidence that was logged to MLflow."""
    nested = _nested(client, run, cell)
    path = Path(folder) / f"evidence-{cell['recipe']}"
    path.mkdir()
    found = client.download_artifacts(nested.info.run_id, f"evidence/{nested.data.tags['qpipe.evidence']}", str(path))
    samples = Path(found) / "profile.npz"
    return samples if samples.exists() else None


def main(extra: list[str]) -> int:
    """Both pipelines; `extra` goes to `qpipe run`."""
    os.environ["QPIPE_BENCH_DATA"] = str(require_data())
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    print(describe_machine(), flush=True)
    table = Table()
    for name in ("resnet20", "minilm"):
        check_pipeline(name, extra, table)
    print("\n| what | qpipe | second computation | equal |\n|---|---|---|---|")
    print("\n".join(table.lines))
    return 0 if table.equal else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
