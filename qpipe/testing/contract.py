"""The suite that every backend passes: subclass it in a test file and give it two fixtures.

```python
class TestMyBackend(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        return MyBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls):
        return Target(name="my-board", backend="my-backend")
```

Where `check` says that engines cannot be built or run here, the tests that need it are skipped with its reason.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from qpipe.engines import check_requirements, read_engine, write_engine
from qpipe.errors import EngineError, QpipeError, TargetError
from qpipe.plugins.answers import as_record, ask_availability, ask_scheme
from qpipe.plugins.backend import Backend, DeviceTimed, Session, Tensors
from qpipe.plugins.kinds import BACKENDS
from qpipe.plugins.packages import ABSENT
from qpipe.records import codec
from qpipe.records.engine import Availability, Built, Engine, Prepared, Unavailable
from qpipe.records.model import Model
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target
from qpipe.records.tensors import TensorSpec
from qpipe.testing.models import small_batches, small_rows, write_small_model
from qpipe.testing.progress import Silent

KINDS = ("measured", "emulated", "simulated")
HEAVY = ("onnxruntime", "onnx", "tensorflow", "torch", "tensorrt", "mlflow", "pandas", "scipy", "ai_edge_litert")
_LIGHT_CHECK = """
import importlib, sys
sys.path[:] = {path!r}
from qpipe.records import codec
from qpipe.records.target import Target
backend = getattr(importlib.import_module({module!r}), {name!r})()
backend.check(codec.decode(Target, {target!r}))
print(",".join(sorted(set(sys.modules) & set({heavy!r}))))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One recipe with what came of it."""

    recipe: str
    model: Model
    prepared: Prepared
    built: Built
    engine: Engine


def run(session: Session, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The small network's logits."""
    outputs = session.run({"image": rows})
    assert isinstance(outputs, Mapping), f"run gives {type(outputs).__name__}: give a dict, outputs by name"
    assert "logits" in outputs, f"run gives {list(outputs)}: give ['logits']"
    return np.asarray(outputs["logits"])


class BackendContract:
    """What the core relies on. Override the class variables where a runtime is coarser."""

    recipes: ClassVar[tuple[str, ...]] = ("none", "int8")
    """Recipes that the backend must be able to build."""
    float_tolerance: ClassVar[float] = 1e-3
    """Largest error of the float engine, relative to the largest output."""
    int8_cosine: ClassVar[float] = 0.95
    """Smallest cosine of int8 and float outputs over all rows."""
    vendor_modules: ClassVar[tuple[str, ...]] = ()
    """More modules that `check` must not import."""

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        """The backend under test."""
        raise NotImplementedError(f"{cls.__name__} gives a fixture `backend`")

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Target:
        """A target of it; one that this machine can build and, if possible, run."""
        raise NotImplementedError(f"{cls.__name__} gives a fixture `target`")

    @pytest.fixture(scope="class")
    @classmethod
    def state(cls, backend: Backend, target: Target) -> Availability:
        """What `check` says."""
        return ask_availability(backend, target)

    @pytest.fixture(scope="class", params=["none", "int8"])
    @classmethod
    def case(
        cls,
        request: pytest.FixtureRequest,
        backend: Backend,
        target: Target,
        state: Availability,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Case:
        """An engine of the small network for each recipe."""
        recipe = str(request.param)
        if recipe not in cls.recipes:
            pytest.skip(f"{cls.__name__} does not build {recipe}")
        if isinstance(state.build, Unavailable):
            pytest.skip(state.build.reason)
        folder = tmp_path_factory.mktemp(f"contract-{recipe}")
        model = write_small_model(folder)
        prepared = _prepare(model, recipe, ask_scheme(backend, target), folder)
        return _build(backend, target, model, prepared, recipe, folder / "engine")

    @pytest.fixture
    def session(self, backend: Backend, target: Target, state: Availability, case: Case) -> Iterator[Session]:
        """An open session on the engine."""
        if isinstance(state.run, Unavailable):
            pytest.skip(state.run.reason)
        session = backend.open(case.engine, target)
        lacks = [name for name in ("kind", "signature", "run", "close") if not hasattr(session, name)]
        assert not lacks, f"open gives {type(session).__name__}, which lacks {', '.join(lacks)}"
        yield session
        session.close()

    def test_it_is_a_backend_of_the_targets_name(self, backend: Backend, target: Target) -> None:
        """The methods are there, and the target names this backend."""
        assert (wrong := BACKENDS.complain(backend)) is None, f"this is no backend: {wrong}"
        assert backend.name == target.backend, f"it is called {backend.name!r}, its target names {target.backend!r}"

    def test_check_is_steady_and_explains_itself(self, backend: Backend, target: Target, state: Availability) -> None:
        """The same answer twice; what is missing has a reason; what is there has a name."""
        assert ask_availability(backend, target) == state, "check answers differently a second time"
        for part in (state.build, state.run):
            assert not isinstance(part, Unavailable) or part.reason.strip(), "Unavailable needs a reason"
        assert state.toolchain, "toolchain is empty: name what shapes the engine with its version (package_versions)"
        assert isinstance(state.run, Unavailable) or state.fingerprint, "a device that runs has a fingerprint"
        absent = [name for name, version in state.toolchain if version == ABSENT]
        honest = isinstance(state.build, Unavailable) or not absent
        assert honest, f"it can build, though {absent[0]} is {ABSENT}: name the distribution as pip does"

    def test_check_imports_nothing_heavy(self, backend: Backend, target: Target) -> None:
        """`qpipe targets` asks every backend."""
        code = _LIGHT_CHECK.format(
            path=sys.path,
            module=type(backend).__module__,
            name=type(backend).__name__,
            target=codec.encode(target),
            heavy=HEAVY + self.vendor_modules,
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "", f"check imports {done.stdout.strip()}"

    def test_unknown_options_are_refused(self, backend: Backend, target: Target) -> None:
        """By `check`, before any work, with the key in the message."""
        wrong = replace(target, options={**target.options, "no_such_option": 1})
        _assert_refused(backend, wrong, "no_such_option", "options")

    def test_unknown_schemes_are_refused(self, backend: Backend, target: Target) -> None:
        """By `check`, before any work."""
        _assert_refused(backend, replace(target, scheme="no-such-scheme"), "no-such-scheme", "scheme")

    def test_scheme_is_steady_data(self, backend: Backend, target: Target) -> None:
        """It is part of the prepare key."""
        assert ask_scheme(backend, target) == ask_scheme(backend, target), "scheme answers differently a second time"

    def test_build_says_what_it_made(self, case: Case) -> None:
        """Files (the manifest has checked them), requirements, toolchain, reasons for what stayed float."""
        assert case.built.requires, "an engine requires something of a machine: a package, an arch, a GPU"
        assert case.built.toolchain, "Built.toolchain is empty: name what shaped the engine, with its version"
        check_requirements(case.engine)
        placement = case.built.placement
        if placement is not None:
            assert min(placement.integer, placement.float, placement.elsewhere) >= 0
            assert len(placement.left_in_float) <= placement.float
            assert all(node.name and node.reason for node in placement.left_in_float)
        assert all(np.isfinite(fact.value) and fact.name for fact in case.built.facts)

    def test_build_is_repeatable_and_touches_nothing_else(
        self, case: Case, backend: Backend, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same list of files again; the model and the working folder are as before."""
        monkeypatch.chdir(_made(tmp_path / "cwd"))
        busy = _left_running()
        before = _bytes_below(case.prepared.graph.path.parent, without=case.engine.path)
        again = _build(backend, target, case.model, case.prepared, case.recipe, tmp_path / "engine")
        assert again.built.files == case.built.files
        assert again.built.toolchain == case.built.toolchain
        assert again.built.requires == case.built.requires
        untouched = _bytes_below(case.prepared.graph.path.parent, without=case.engine.path) == before
        assert untouched, "build writes beside the model that it was given: write to `workdir`"
        assert Path.cwd() == tmp_path / "cwd", "build changes the working folder: give your tools full paths"
        assert list(Path.cwd().iterdir()) == [], "build writes to the working folder: write to `workdir`"
        assert not (left := _left_running() - busy), f"build leaves {', '.join(sorted(left))} running: wait for it"

    @pytest.mark.parametrize("batch", [1, 5])
    def test_outputs_are_those_of_the_signature(self, case: Case, session: Session, batch: int) -> None:
        """Names in order, dtypes, shapes; finite; the inputs are left alone."""
        rows = small_rows(batch)
        given = rows.copy()
        outputs = session.run({"image": rows})
        assert isinstance(outputs, Mapping), f"run gives {type(outputs).__name__}: give a dict, outputs by name"
        assert session.signature == case.model.signature, "a session's signature is that of its engine"
        assert session.kind in KINDS, f"kind is {session.kind!r}: say one of {', '.join(KINDS)}"
        names = [spec.name for spec in case.model.signature.outputs]
        assert list(outputs) == names, f"run gives {list(outputs)}: give {names}, in the signature's order"
        for spec in case.model.signature.outputs:
            _assert_fits(outputs[spec.name], spec, batch)
        assert np.array_equal(rows, given), "a session does not write into its inputs"

    def test_outputs_are_the_models(self, case: Case, session: Session) -> None:
        """The float engine gives the model's numbers, the int8 engine similar ones; rows keep their order."""
        rows = small_rows(16, seed=2)
        expected = _reference(case.model, rows)
        found = np.concatenate([run(session, rows[start : start + 4]) for start in range(0, 16, 4)])
        if case.recipe == "none":
            error = np.abs(found - expected).max() / np.abs(expected).max()
            assert error <= self.float_tolerance, f"the float engine is off by {error:.2g}: its rows, or its float32"
        else:
            cosine = (found * expected).sum() / np.sqrt((found**2).sum() * (expected**2).sum())
            assert cosine >= self.int8_cosine, f"cosine to float is {cosine:.3f}: layout, scales, or a wrong scheme"

    def test_a_row_does_not_depend_on_its_batch(self, session: Session) -> None:
        """Batch 1 and batch 5 give the same rows, up to float rounding."""
        rows = small_rows(5)
        single = np.concatenate([run(session, rows[number : number + 1]) for number in range(5)])
        told = "five rows at once give other numbers than one by one: their order, or what a run leaves behind"
        np.testing.assert_allclose(run(session, rows), single, rtol=1e-3, atol=1e-3, err_msg=told)

    def test_outputs_stay_and_repeat(self, session: Session) -> None:
        """A later run does not write into the outputs of an earlier one; the same rows give the same outputs."""
        first = run(session, small_rows(2))
        kept = first.copy()
        for seed in range(2, 8):
            run(session, small_rows(2, seed))
        np.testing.assert_array_equal(first, kept, err_msg="a later run writes into outputs that were given: copy them")
        np.testing.assert_allclose(run(session, small_rows(2)), kept, rtol=1e-5, atol=1e-6)

    def test_wrong_inputs_are_an_exception(self, session: Session) -> None:
        """Not a crash, and not an answer."""
        wrong: Tensors = {"no_such_input": small_rows(1)}
        said = _error(lambda: session.run(wrong), Exception)
        missing = "run answers though input 'image' is missing: compare names with the signature, raise EngineError"
        assert said is not None, missing
        assert said.strip(), "the error for a missing input has no message: name the input"

    def test_run_after_close_raises(self, session: Session) -> None:
        """And closing twice is fine."""
        run(session, small_rows(1))
        session.close()
        session.close()
        said = _error(lambda: run(session, small_rows(1)), QpipeError)
        assert said is not None, "run answers after close: let it raise EngineError"

    def test_a_device_has_a_clock(self, session: Session) -> None:
        """Times of a run that a device gives are above zero."""
        if not isinstance(session, DeviceTimed):
            pytest.skip("it is timed from here")
        run(session, small_rows(1))
        wall, cpu = session.device_ns
        assert wall > 0, f"device_ns gives {wall} ns of wall time for a run: measure around the runtime's call, in ns"
        assert cpu >= 0, f"device_ns gives {cpu} ns of CPU time: 0 where the device cannot tell"

    def test_two_sessions_at_once(self, case: Case, session: Session, backend: Backend, target: Target) -> None:
        """Timing opens the float engine and the quantized one side by side."""
        rows = small_rows(3)
        alone = run(session, rows)
        other = backend.open(case.engine, target)
        np.testing.assert_allclose(run(other, rows), alone, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(run(session, rows), alone, rtol=1e-5, atol=1e-6)
        other.close()
        np.testing.assert_allclose(run(session, rows), alone, rtol=1e-5, atol=1e-6)

    def test_an_engine_works_in_another_folder(
        self, case: Case, session: Session, backend: Backend, target: Target, tmp_path: Path
    ) -> None:
        """It is fetched, copied and moved: nothing in it may name its place, nor be written to."""
        shutil.copytree(case.engine.path, tmp_path / "copy")
        for path in (tmp_path / "copy").rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = _bytes_below(tmp_path / "copy")
        hidden = case.engine.path.rename(case.engine.path.with_name("hidden"))
        try:
            copy = backend.open(read_engine(tmp_path / "copy"), target)
            found = run(copy, small_rows(2))
            copy.close()
        finally:
            hidden.rename(case.engine.path)
        np.testing.assert_allclose(found, run(session, small_rows(2)), rtol=1e-5, atol=1e-6)
        assert _bytes_below(tmp_path / "copy") == before

    def test_a_changed_engine_is_refused(self, case: Case, tmp_path: Path) -> None:
        """One flipped byte of any file, through the manifest."""
        for name in [file.name for file in case.engine.files]:
            copy = tmp_path / name.replace("/", "_")
            shutil.copytree(case.engine.path, copy)
            data = bytearray((copy / name).read_bytes())
            data[len(data) // 2] ^= 1
            (copy / name).write_bytes(data)
            with pytest.raises(EngineError, match="expected sha256"):
                read_engine(copy)

    def test_where_it_cannot_run_it_says_so(
        self, case: Case, backend: Backend, target: Target, state: Availability
    ) -> None:
        """`open` raises an error for users, where `check` says that engines do not run here."""
        if not isinstance(state.run, Unavailable):
            pytest.skip("engines run here")
        with pytest.raises(QpipeError) as caught:
            backend.open(case.engine, target)
        assert caught.value.message.strip()


def _assert_refused(backend: Backend, target: Target, word: str, field: str) -> None:
    said = _error(lambda: backend.check(target), TargetError)
    assert said is not None, f"check takes a target with {field} {word!r}: raise TargetError for what is not known"
    assert word in said, f"check refuses {field} {word!r} without naming it: {said}"


def _error(call: Callable[[], object], kind: type[Exception]) -> str | None:
    """What an error of that kind says, or None where the call returns."""
    try:
        call()
    except kind as error:
        return str(error)
    return None


def _prepare(model: Model, recipe: str, scheme: Scheme, folder: Path) -> Prepared:
    from qpipe.prepare import builtin_recipe, prepare

    stages = folder / "stages"
    stages.mkdir()
    return prepare(model, builtin_recipe(recipe, scheme), scheme, small_batches, stages, None, Silent())


def _build(backend: Backend, target: Target, model: Model, prepared: Prepared, recipe: str, workdir: Path) -> Case:  # noqa: PLR0917  (one noun each)
    answer = backend.build(prepared, target, _made(workdir), Silent())
    built = as_record(answer, Built, f"backend {backend.name}: build")
    engine = write_engine(
        workdir,
        built,
        model=model.name,
        model_digest=model.digest,
        recipe=recipe,
        target=target.name,
        backend=backend.name,
        signature=prepared.signature,
    )
    return Case(recipe=recipe, model=model, prepared=prepared, built=built, engine=engine)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _reference(model: Model, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    from onnx.reference import ReferenceEvaluator

    outputs = ReferenceEvaluator(str(model.file.path)).run(None, {"image": rows})
    return np.asarray(outputs[0])  # type: ignore[index]  # a list, unless intermediate values are asked for


def _bytes_below(folder: Path, without: Path | None = None) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if without is None or not path.is_relative_to(without)}


def _left_running() -> set[str]:
    """Processes that this one started and that still run, and threads that would keep it from ending."""
    threads = {f"thread {one.name}" for one in threading.enumerate() if not one.daemon}
    children = (number for path in Path("/proc/self/task").glob("*/children") for number in path.read_text().split())
    return threads | {f"process {Path('/proc', number, 'comm').read_text().strip()} ({number})" for number in children}


def _assert_fits(values: object, spec: TensorSpec, batch: int) -> None:
    assert isinstance(values, np.ndarray), f"output {spec.name!r} is a {type(values).__name__}: give a numpy array"
    assert values.dtype == np.dtype(spec.dtype), (
        f"output {spec.name!r} is {values.dtype}: convert it to {spec.dtype}, the dtype of the user's model"
    )
    shape = [batch, *spec.shape[1:]]
    fits = spec.fits(values.shape) and len(values) == batch
    assert fits, f"output {spec.name!r} has the shape {list(values.shape)}: give {shape}, also for a batch of one"
    assert np.isfinite(values).all(), f"output {spec.name!r} has NaN or infinity where the model has none"
