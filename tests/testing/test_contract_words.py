"""The suite tells the author of a wrong backend what to do: pytest explains none of an installed module."""

from types import SimpleNamespace

import numpy as np
import pytest

from qpipe.errors import TargetError
from qpipe.records.target import Target
from qpipe.records.tensors import Signature, TensorSpec
from qpipe.testing.comparing import run
from qpipe.testing.contract import BackendContract

SPEC = TensorSpec(name="logits", dtype="float32", shape=("N", 3))
SIGNATURE = Signature(inputs=(), outputs=(SPEC,))
CASE = SimpleNamespace(model=SimpleNamespace(signature=SIGNATURE))


class Wrong:
    """A session, a backend and a target in one."""

    signature = SIGNATURE

    def __init__(self, outputs=None, *, kind="measured", device_ns=(1, 0), refuses=""):
        self.outputs = {"logits": np.zeros((1, 3), np.float32)} if outputs is None else outputs
        self.kind, self.device_ns, self.refuses = kind, device_ns, refuses

    def run(self, _inputs):
        return self.outputs

    def check(self, _target):
        if self.refuses:
            raise TargetError(self.refuses)

    def close(self): ...


def outputs(values) -> Wrong:
    return Wrong({"logits": values})


def signed(session):
    BackendContract().test_outputs_are_those_of_the_signature(CASE, session, 1)


def clock(session):
    BackendContract().test_a_device_has_a_clock(session)


def options(backend):
    BackendContract().test_unknown_options_are_refused(backend, Target(name="t", backend="b"))


def single(session):
    run(session, np.zeros((1, 1, 8, 8), np.float32))


def misnamed(session):
    BackendContract().test_wrong_inputs_are_an_exception(session, "missing")


def named(backend):
    BackendContract().test_it_is_a_backend_of_the_targets_name(backend, Target(name="t", backend="b"))


@pytest.mark.parametrize(
    ("test", "wrong", "words"),
    [
        (signed, Wrong({"scores": np.zeros(1)}), "run gives ['scores']: give ['logits']"),
        (signed, Wrong([np.zeros((1, 3))]), "run gives list: give a dict, outputs by name"),
        (single, Wrong({"scores": np.zeros(1)}), "run gives ['scores']: give ['logits']"),
        (named, Wrong(), "this is no backend: it has no method scheme, build, open"),
        (signed, Wrong(kind="guessed"), "kind is 'guessed': say one of measured"),
        (signed, outputs([[0.0, 0.0, 0.0]]), "is a list: give a numpy array"),
        (signed, outputs(np.float32(1)), "is a float32: give a numpy array"),
        (signed, outputs(np.zeros((1, 3), np.float16)), "is float16: convert it to float32"),
        (signed, outputs(np.zeros(3, np.float32)), "has the shape [3]: give [1, 3], also for a batch of one"),
        (signed, outputs(np.full((1, 3), np.nan, np.float32)), "has NaN or infinity"),
        (BackendContract().test_run_after_close_raises, Wrong(), "run answers after close"),
        (misnamed, Wrong(), "run answers though input 'image' is missing"),
        (clock, Wrong(device_ns=(-5, 0)), "gives -5 ns of wall time"),
        (options, Wrong(), "check takes a target with options 'no_such_option'"),
        (options, Wrong(refuses="no"), "without naming it: no"),
    ],
)
def test_each_mistake_is_told(test, wrong, words):
    with pytest.raises(AssertionError) as caught:
        test(wrong)
    assert words in str(caught.value)
