from pathlib import Path

import numpy as np
import pytest
from measured_examples import evaluation, profile, verdict
from measured_examples import evidence as evidence_of

from qpipe.measure.samples import FILE, Samples, save_samples
from qpipe.records.engine import Engine, EngineFile, Fact, FloatNode, Placement
from qpipe.records.evidence import NotMeasured
from qpipe.records.explanation import Attribution, Step
from qpipe.records.remark import Remark
from qpipe.records.result import CellResult, Promoted, RunResult
from qpipe.records.tensors import Signature
from qpipe.records.verdict import Decision, SliceVerdict, Verdict


def verdicts():
    quality = verdict(n=1500, notes=("agreement-only",))
    parts = tuple(
        SliceVerdict(name=name, decision=decision, observed=seen, low=seen - 0.02, high=seen + 0.01, n=50)
        for name, decision, seen in (("label=<1>", Decision.PASS, 0.0), ("label=2", Decision.FAIL, -0.2))
    )
    slices = Verdict(
        gate="slices",
        decision=Decision.FAIL,
        reason="label=2 lost 20 points",
        limit=-0.1,
        advice="about 1,900 more rows would decide",
        slices=parts,
        high=float("inf"),
    )
    return quality, slices


def engine(recipe):
    return Engine(
        path=Path("/store/engine"),
        digest="aa" * 32,
        model="digits",
        model_digest="bb" * 32,
        recipe=recipe,
        target="cpu-local",
        backend="onnxruntime",
        files=(EngineFile(name="model.onnx", sha256="00" * 32, size_bytes=12345),),
        signature=Signature(inputs=(), outputs=()),
        kind="measured",
        requires=(),
        toolchain=(("onnxruntime", "1.31.1"),),
        placement=None,
        facts=(),
        notes=("3 builds: <1> engine",),
    )


def attribution():
    steps = (
        Step(name="float", metric=0.975, sqnr_db=None),
        Step(name="prepared", metric=None, sqnr_db=41.25),
        Step(name="quantized", metric=0.974, sqnr_db=29.5),
        Step(name="engine", metric=0.973, sqnr_db=None, note="not run: <no device>"),
    )
    return Attribution(role="gate", rows=16, steps=steps)


def cell(recipe, **changes):
    found = evidence_of(
        evaluation=evaluation(0.973, cosine=float("nan")),
        reference=evaluation(0.975, cosine=float("nan")),
        profile=profile(1, 8),
        engine_size_bytes=12345,
        baseline_size_bytes=45678,
        placement=Placement(
            integer=5, float=1, elsewhere=0, left_in_float=(FloatNode(name="conv<1>", op="Conv", reason="3 channels"),)
        ),
        facts=(Fact(name="arena_bytes", value=1024, unit="B", kind="estimated"),),
        attribution=attribution(),
        remarks=(Remark(kind="constant-input", subject="in<0>", message="every value is 1"),),
    )
    told = {
        "key": f"key-{recipe}",
        "model": "digits",
        "recipe": recipe,
        "target": "cpu-local",
        "status": "ok",
        "engine": engine(recipe),
        "evidence": found,
        "attribution": (("float", 0.975), ("quantized", 0.974), ("engine", 0.973)),
    }
    return CellResult(**{**told, **changes})


@pytest.fixture
def result():
    crashed = {"status": "crashed", "reason": "signal 11 <SEGV>", "hint": "look", "log_tail": "boom", "engine": None}
    return RunResult(
        run_id="run-1",
        mlflow_run_id=None,
        pipeline="digits <demo>",
        exit_code=3,
        warnings=("two [cores] alone",),
        cells=(
            cell("none"),
            cell("int8", verdicts=verdicts(), decision=Decision.FAIL, cached=True),
            cell("fp16", evidence=None, **crashed),
        ),
        promoted=(Promoted(model="digits-cpu-local", version="3", alias="champion", engine="aa" * 32),),
    )


@pytest.fixture
def evidence(tmp_path):
    """The evidence folder of the int8 cell, with raw samples as a profile leaves them."""
    random = np.random.default_rng(0)
    names = np.array(["digits/none/cpu-local", "digits/int8/cpu-local"])
    process, block, size, which, _ = (
        part.ravel()
        for part in np.meshgrid(np.arange(2), np.arange(2), [1, 8], np.arange(2), np.arange(10), indexing="ij")
    )
    wall = (2e6 / (which + 1) * size * random.lognormal(0, 0.1, len(size))).astype(np.int64)
    samples = Samples(
        engines=names,
        process=process,
        block=block,
        batch=size,
        engine=which,
        wall_ns=wall,
        cpu_ns=wall,
        load_ms=np.ones((2, 2)),
        outputs_match=np.ones((2, 2), bool),
    )
    folder = tmp_path / "evidence"
    folder.mkdir()
    save_samples(folder / FILE, samples)
    return {"key-int8": folder}


@pytest.fixture
def unmeasured(result):
    import dataclasses

    first = result.cells[0]
    bare = dataclasses.replace(
        first.evidence,
        evaluation=NotMeasured(reason="no device"),
        profile=NotMeasured(reason="no device"),
        placement=None,
    )
    return dataclasses.replace(result, cells=(dataclasses.replace(first, evidence=bare),))
