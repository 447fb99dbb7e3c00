"""Every scripted lie is told, and the contract finds it: a suite that cannot fail would prove nothing."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from qpipe.engines import read_engine, write_engine
from qpipe.errors import BuildError, EngineError, TargetError
from qpipe.execute.children.guard import Exit, run_guarded
from qpipe.plugins.loader import load_plugins
from qpipe.prepare import builtin_recipe, prepare
from qpipe.records.engine import Engine, Unavailable
from qpipe.records.target import Limits, Target
from qpipe.testing.fake import SCHEME, FakeBackend, fake_site
from qpipe.testing.models import small_batches, small_rows, write_small_model
from qpipe.testing.progress import Silent

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIES = {
    "flip": ({"flip": 1.0}, "test_outputs_are_the_models"),
    "nan": ({"nan": 1.0}, "test_outputs_are_those_of_the_signature"),
    "noise": ({"noise": 2.0, "lies": "all"}, "test_outputs_are_the_models"),
    "late": ({"lie_after_runs": 3}, "test_outputs_stay_and_repeat"),
    "reuse": ({"reuses_outputs": True}, "test_outputs_stay_and_repeat"),
    "inputs": ({"writes_inputs": True}, "test_outputs_are_those_of_the_signature"),
    "single": ({"batch_one_only": True}, "test_a_row_does_not_depend_on_its_batch"),
    "unlisted": ({"undeclared": True}, "test_build_says_what_it_made"),
    "refuses": ({"open": "refuse"}, "test_two_sessions_at_once"),
}


def target(**options: object) -> Target:
    return Target(name="pretend", backend="fake", options=options)


def build(folder: Path, recipe: str = "int8", **options: object) -> Engine:
    (folder / "stages").mkdir(parents=True)
    model = write_small_model(folder)
    made = prepare(model, builtin_recipe(recipe, SCHEME), SCHEME, small_batches, folder / "stages", None, Silent())
    workdir = folder / "engine"
    workdir.mkdir()
    return write_engine(
        workdir,
        FakeBackend().build(made, target(**options), workdir, Silent()),
        model=model.name,
        model_digest=model.digest,
        recipe=recipe,
        target="pretend",
        backend="fake",
        signature=made.signature,
    )


def logits(engine: Engine, rows: np.ndarray, **options: object) -> np.ndarray:
    session = FakeBackend().open(engine, target(**options))
    try:
        return np.asarray(session.run({"image": rows})["logits"])
    finally:
        session.close()


def test_the_contract_finds_every_lie(tmp_path):
    classes = "".join(f"class Test_{name}(Lying):\n    options = {options!r}\n" for name, (options, _) in LIES.items())
    code = """
    import pytest
    from qpipe.records.target import Target
    from qpipe.testing.contract import BackendContract
    from qpipe.testing.fake import FakeBackend

    class Lying(BackendContract):
        @pytest.fixture(scope="class")
        @classmethod
        def backend(cls):
            return FakeBackend()

        @pytest.fixture(scope="class")
        @classmethod
        def target(cls):
            return Target(name="pretend", backend="fake", options=cls.options)

    """
    (tmp_path / "test_lies.py").write_text(f"{textwrap.dedent(code)}{classes}")
    tests = " or ".join({test for _, test in LIES.values()})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "--tb=no", "-k", tests, "."],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = {(lie, test) for lie, test in re.findall(r"(?:FAILED|ERROR) \S+::Test_(\w+)::(\w+)", done.stdout)}
    for name, (_, test) in LIES.items():
        assert (name, test) in found, done.stdout
    assert {name for name, _ in found} == set(LIES)


def test_flips_are_a_share_of_rows_whatever_the_batch(tmp_path):
    engine = build(tmp_path)
    rows = small_rows(2000, seed=3)
    true, lied = logits(engine, rows), logits(engine, rows, flip=0.1)
    wrong = (true.argmax(1) != lied.argmax(1)).mean()
    assert 0.08 < wrong < 0.12
    single = np.concatenate([logits(engine, rows[number : number + 1], flip=0.1) for number in range(20)])
    np.testing.assert_allclose(single, lied[:20], rtol=1e-5)
    assert np.isnan(logits(engine, rows, nan=0.1)).any(axis=1).sum() == pytest.approx(200, abs=40)


def test_the_float_engine_is_honest_unless_all_lie(tmp_path):
    engine = build(tmp_path, "none")
    rows = small_rows(50)
    np.testing.assert_array_equal(logits(engine, rows), logits(engine, rows, flip=1.0))
    assert not np.array_equal(logits(engine, rows), logits(engine, rows, flip=1.0, lies="all"))


@pytest.mark.parametrize(("recipe", "option"), [("int8", "slow_ms"), ("none", "float_slow_ms")])
def test_slow_engines_are_slow(tmp_path, recipe, option):
    import time

    session = FakeBackend().open(build(tmp_path, recipe), target(**{option: 40.0}))
    began = time.perf_counter()
    session.run({"image": small_rows(1)})
    assert time.perf_counter() - began >= 0.04
    session.close()


def test_what_the_script_says_of_an_engine(tmp_path):
    options = {"weight_bytes": 1000, "facts": {"arena": 7.0}, "integer_nodes": 3, "float_nodes": 1, "version": "9"}
    engine = build(tmp_path, **options)
    assert [file.name for file in engine.files] == ["model.onnx", "weights.bin"]
    assert engine.placement is not None
    assert (engine.placement.integer, engine.placement.float) == (3, 1)
    assert [(fact.name, fact.value) for fact in engine.facts] == [("arena", 7.0)]
    assert engine.toolchain == (("fake", "9"),)
    assert read_engine(engine.path) == engine
    state = FakeBackend().check(target(build_unavailable="no compiler", impossible=True))
    assert state.build == Unavailable(reason="no compiler", hint="the target's options say so", impossible=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fliip": 0.1}, "no option 'fliip'; did you mean 'flip'?"),
        ({"flip": "often"}, 'options: flip: "often" is not a number'),
        ({"build": "maybe"}, "options: build: "),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(TargetError, match=re.escape(message)):
        FakeBackend().check(target(**options))


def test_refusals_are_errors_of_the_right_kind(tmp_path):
    engine = build(tmp_path)
    with pytest.raises(BuildError):
        build(tmp_path / "again", build="refuse")
    with pytest.raises(EngineError):
        logits(engine, small_rows(1), open="refuse")
    with pytest.raises(EngineError):
        logits(engine, small_rows(1), run="refuse")
    with pytest.raises(ZeroDivisionError):
        logits(engine, small_rows(1), run="raise")


def use_fake(request, progress):
    """Entry of a guarded child: the fake backend as an installed plugin."""
    folder, deed = request.split()
    backend = load_plugins().backend("fake")
    engine = read_engine(Path(folder))
    backend.open(engine, target(run=deed)).run({"image": small_rows(1)})
    return "ran"


@pytest.mark.parametrize(("deed", "kind"), [("ok", "ok"), ("refuse", "failed"), ("hang", "timeout")])
def test_in_a_guarded_child_it_is_an_installed_plugin(tmp_path, monkeypatch, deed, kind):
    for path in (fake_site(), HERE, ROOT):
        monkeypatch.syspath_prepend(str(path))
    engine = build(tmp_path)
    limits = Limits(timeout_s=2.0 if deed == "hang" else 60.0, memory_bytes=700 << 20)
    ended: Exit = run_guarded("test_fake_lies:use_fake", f"{engine.path} {deed}", workdir=tmp_path, limits=limits)
    assert ended.kind == kind, ended
