"""Backends that are wrong in one thing each: the suite says so, in words that say what to do."""

import locale
import logging
import os
import random
import signal
import tempfile
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from qpipe.errors import EngineError
from qpipe.quant.schemes import FLOAT
from qpipe.records.engine import NodeKernel, Ready
from qpipe.records.target import Target
from qpipe.testing.cases import make_case
from qpipe.testing.contract import BackendContract
from qpipe.testing.fake import FakeBackend
from qpipe.testing.models import small_batches, write_small_model

TARGET = Target(name="pretend", backend="fake", options={"integer_nodes": 0})
SUITE = BackendContract()


class Wrong(FakeBackend):
    """Does something on the side, at each build or each time that a session opens."""

    def __init__(self, aside=lambda: None, after_build=lambda _workdir: None, session=None):
        self.aside, self.after_build, self.session = aside, after_build, session

    def build(self, prepared, target, workdir, progress):
        built = super().build(prepared, target, workdir, progress)
        self.after_build(workdir)
        return built

    def open(self, engine, target):
        self.aside()
        found = super().open(engine, target)
        return self.session(found) if self.session else found


class Odd:
    """A session around an honest one."""

    def __init__(self, inner):
        self.inner, self.kind, self.signature = inner, inner.kind, inner.signature

    def run(self, inputs):
        return self.inner.run(inputs)

    def close(self):
        self.inner.close()


class Remembers(Odd):
    rows, outputs = None, None

    def run(self, inputs):
        if inputs["image"] is not self.rows:
            self.rows, self.outputs = inputs["image"], super().run(inputs)
        return {name: values.copy() for name, values in self.outputs.items()}


class ReadsItsBuffer(Odd):
    def run(self, inputs):
        rows = whole = inputs["image"]
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        return super().run({"image": whole.ravel()[: rows.size].reshape(rows.shape)})


class Writes(Odd):
    def run(self, inputs):
        memoryview(inputs["image"]).cast("B")[0] ^= 0
        return super().run(inputs)


class OfItsThread(Odd):
    def __init__(self, inner):
        super().__init__(inner)
        self.thread = threading.get_ident()

    def run(self, inputs):
        if threading.get_ident() != self.thread:
            raise EngineError("no context")
        return super().run(inputs)


class KeepsLargest(Odd):
    """Rows of the largest batch so far stay in its buffer."""

    buffer = np.zeros((0, 1, 8, 8), np.float32)

    def run(self, inputs):
        rows = len(inputs["image"])
        if rows >= len(self.buffer):
            self.buffer = inputs["image"].copy()
        return {name: values[:rows] for name, values in super().run({"image": self.buffer}).items()}


class Breaks(Odd):
    broken = False

    def run(self, inputs):
        if self.broken:
            raise EngineError("in a bad state")
        try:
            return super().run(inputs)
        except EngineError:
            self.broken = True
            raise


class Drops(Odd):
    """Its runtime is gone after close, and so is what would say so."""

    def close(self):
        self.inner = None


class Pads(Odd):
    def run(self, inputs):
        rows = inputs["image"]
        return super().run({"image": np.pad(rows, [(0, 0)] * 3 + [(0, 8 - rows.shape[3])])})


class Sorts(Odd):
    """Outputs by the names' own order."""

    def run(self, inputs):
        found = super().run(inputs)
        return dict(zip(found, (found[name] for name in sorted(found)), strict=True))


class Counts(Odd):
    """Inputs by their place."""

    def run(self, inputs):
        return super().run({spec.name: rows for spec, rows in zip(self.signature.inputs, inputs.values(), strict=True)})


def stamp(text):
    def after(workdir):
        model = onnx.load(workdir / "model.onnx")
        model.doc_string = text(workdir)
        onnx.save(model, workdir / "model.onnx")

    return after


def beneath(folder, name):
    path = Path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("cached")


def wait():
    threading.Thread(target=time.sleep, args=(0.5,), name=f"poller-{time.monotonic_ns()}").start()


@pytest.fixture(scope="module", params=["int8"])
def case(tmp_path_factory, request):
    model = write_small_model(tmp_path_factory.mktemp("wrong"))
    return make_case(FakeBackend(), TARGET, model, request.param, small_batches)


@pytest.fixture
def tell(case, tmp_path):
    """What the suite says of a backend, by one of its tests."""

    def told(test, backend):
        has = {
            "case": case,
            "backend": backend,
            "target": TARGET,
            "environment": dict(os.environ),
            "tmp_path": tmp_path,
            "state": backend.check(TARGET),
            "wrong": "smaller",
        }
        names = test.__code__.co_varnames[1 : test.__code__.co_argcount]
        if "session" in names:
            source = FakeBackend() if "backend" in names else backend
            has["session"] = source.open(case.engine, TARGET)
        with pytest.raises(AssertionError) as caught:
            test(**{name: has[name] for name in names})
        return str(caught.value)

    return told


@pytest.mark.parametrize(
    ("aside", "words"),
    [
        (lambda: os.environ.update(FAKE_THREADS="1"), "changes environment variable FAKE_THREADS of the process"),
        (lambda: os.chdir("/"), "changes the working folder of"),
        (lambda: np.seterr(all="ignore"), "changes np.seterr of"),
        (lambda: np.random.seed(0), "changes np.random's state of"),
        (lambda: random.seed(0), "changes random's state of"),
        (lambda: warnings.simplefilter("ignore"), "changes warnings.filters of"),
        (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), "changes the handler of SIGTERM of"),
        (lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"), "changes the locale of"),
        (lambda: logging.getLogger().setLevel(logging.ERROR), "changes the root logger's level of"),
        (lambda: beneath(Path.home(), ".cache/fake/kernels"), "leaves .cache in the home folder: put caches into"),
        (lambda: tempfile.mkdtemp(prefix="fake-"), "in the temporary folder: remove it"),
        (lambda: Path("trace.json").write_text("{}"), "leaves trace.json in the working folder: give your tools"),
        (wait, "leaves thread poller-"),
    ],
)
def test_what_is_done_aside_is_told_of_open_and_of_build(tell, aside, words):
    before = Path.cwd(), os.environ.get("FAKE_THREADS"), signal.getsignal(signal.SIGTERM)
    told = tell(SUITE.test_a_session_touches_nothing_else, Wrong(aside=aside))
    assert told.startswith("a session (open, run, close) ")
    assert words in told
    told = tell(SUITE.test_build_is_repeatable_and_touches_nothing_else, Wrong(after_build=lambda _workdir: aside()))
    assert told.startswith("build ")
    assert words in told
    assert before == (Path.cwd(), os.environ.get("FAKE_THREADS"), signal.getsignal(signal.SIGTERM))


def test_what_the_first_call_changed_already_is_told(case, tell):
    """A backend that sets what is set already would go unseen."""
    backend = Wrong(aside=lambda: np.seterr(all="ignore"))
    with np.errstate():
        backend.open(case.engine, TARGET).close()
        assert "changes np.seterr" in tell(SUITE.test_a_session_touches_nothing_else, backend)


@pytest.mark.parametrize("text", [lambda _workdir: os.urandom(8).hex(), str], ids=["chance", "path"])
def test_builds_that_differ_are_told(tell, text):
    told = tell(SUITE.test_build_is_repeatable_and_touches_nothing_else, Wrong(after_build=stamp(text)))
    assert "two builds of one model differ in ['model.onnx']: a path, a time, or no seed" in told


@pytest.mark.parametrize(
    ("test", "session", "words"),
    [
        (SUITE.test_inputs_are_the_callers, Remembers, "an array that was given before, with other rows in it"),
        (SUITE.test_inputs_are_the_callers, ReadsItsBuffer, "rows that lie apart in memory are refused or misread"),
        (SUITE.test_inputs_are_the_callers, Writes, "an array that may not be written is refused or misread"),
        (SUITE.test_another_thread_may_run_it, OfItsThread, "runs in the thread alone that opened it"),
        (SUITE.test_a_row_does_not_depend_on_its_batch, KeepsLargest, "buffers of the larger batch are still in use"),
        (SUITE.test_wrong_inputs_are_an_exception, Breaks, "after an error the session is broken"),
        (SUITE.test_wrong_inputs_are_an_exception, Pads, "run answers though input 'image' is smaller"),
        (SUITE.test_run_after_close_raises, Drops, "run after close raises AttributeError: 'NoneType' object has no"),
        (SUITE.test_inputs_and_outputs_go_by_name, Sorts, "output 'sum' is off by"),
        (SUITE.test_inputs_and_outputs_go_by_name, Counts, "match inputs and outputs by name, never by their place"),
    ],
)
def test_sessions_that_are_wrong_are_told(tell, test, session, words):
    assert words in tell(test, Wrong(session=session))


@pytest.mark.parametrize(
    ("test", "recipe", "claims", "words"),
    [
        (SUITE.test_placement_is_of_this_model, "int8", {"nodes": ("conv7",)}, "tells of node ['conv7']"),
        (SUITE.test_placement_is_of_this_model, "none", {"integer": 3}, "3 integer kernels, and the recipe none is"),
        (SUITE.test_outputs_are_the_models, "int8", {"integer": 3}, "3 integer kernels, yet outputs are float32's"),
    ],
)
def test_a_placement_that_cannot_be_is_told(case, test, recipe, claims, words):
    nodes = tuple(NodeKernel(node=name, kernel="Conv") for name in claims.get("nodes", ()))
    placement = replace(case.built.placement, integer=claims.get("integer", 0), nodes=nodes)
    lying = replace(case, recipe=recipe, built=replace(case.built, placement=placement))
    session = FakeBackend().open(case.engine, TARGET)
    with pytest.raises(AssertionError) as caught:
        test(lying, *((session,) if test == SUITE.test_outputs_are_the_models else ()))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import fake_vendor", "check (or the plugin) imports fake_vendor: import it inside build and open"),
        ("import os; os.environ['FAKE_HOME'] = '/'", "changes the environment variables FAKE_HOME"),
    ],
)
def test_what_a_plugin_does_when_it_is_imported_is_told(tell, tmp_path, monkeypatch, code, words):
    (tmp_path / "fake_vendor.py").write_text("")
    (tmp_path / "early.py").write_text(
        f"{code}\nfrom qpipe.testing.fake import FakeBackend\nclass Early(FakeBackend): ..."
    )
    monkeypatch.syspath_prepend(tmp_path)
    early = type("Early", (FakeBackend,), {"__module__": "early"})()
    assert words in tell(SUITE.test_check_imports_nothing_heavy, early)


def test_a_scheme_without_integers_is_told_with_what_to_write(tmp_path):
    class Floating(FakeBackend):
        def scheme(self, _target):
            return FLOAT

    with pytest.raises(AssertionError, match=r"no integer kernels: .* write `recipes = \('none',\)` into your test"):
        make_case(Floating(), TARGET, write_small_model(tmp_path), "int8", small_batches)


def test_what_stays_behind_in_the_backend_is_told(case, tmp_path):
    class Keeps(FakeBackend):
        kept = None

        def open(self, engine, target):
            if self.kept is None:
                raise EngineError("this backend has built nothing")
            return super().open(engine, target)

    backend = Keeps()
    backend.kept = Ready()
    with pytest.raises(AssertionError, match="does not open with a new backend object"):
        SUITE.test_an_engine_works_in_another_folder(case, backend.open(case.engine, TARGET), backend, TARGET, tmp_path)
