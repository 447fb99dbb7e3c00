"""What every backend reads the same way: the options of a target, the inputs of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
import pytest

from qpipe.errors import EngineError, TargetError
from qpipe.plugins.inputs import checked_inputs
from qpipe.plugins.options import read_options
from qpipe.records.target import Target
from qpipe.records.tensors import Signature, TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    port: str
    kernels: Literal["fast", "small"] = "fast"
    kib: int = 0
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kib < 0:
            raise ValueError(f"kib is {self.kib}")


def test_options_become_the_dataclass():
    found = read_options(Board, _target(port="a", kib=3, also=["x"]))
    assert found == Board(port="a", kib=3, also=("x",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": "a", "kernals": "fast"}, "backend b has no option 'kernals'; did you mean 'kernels'?"),
        ({}, "options: missing port"),
        ({"port": 3}, "options: port: 3 is not str"),
        ({"port": "a", "kernels": []}, "options: kernels: [] is not one of 'fast', 'small'"),
        ({"port": "a", "kib": "3"}, 'options: kib: "3" is not int'),
        ({"port": "a", "kib": True}, "options: kib: true is not int"),
        ({"port": "a", "kib": -1}, "options: kib is -1"),
        ({"port": "a", "also": ["x", 2]}, "options: also[1]: 2 is not str"),
        ({"port": date(2026, 1, 1)}, "options: date is no part of a record: datetime.date(2026, 1, 1)"),
    ],
)
def test_what_cannot_be_an_option_is_named(options, message):
    with pytest.raises(TargetError) as caught:
        read_options(Board, _target(**options))
    assert caught.value.message == f"target t: {message}"
    assert "port, kernels, kib, also" in caught.value.hint


def test_inputs_come_in_the_order_of_the_signature():
    a, b = np.zeros((2, 3), np.float32), np.zeros(2, np.int64)
    found = checked_inputs(_SIGNATURE, {"b": b, "a": a})
    assert list(found) == ["a", "b"]
    assert found["a"] is a


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "inputs are missing; the engine has a, b"),
        ({"a": np.zeros((2, 3), np.float32)}, "inputs are a; the engine has a, b"),
        ({"a": np.zeros((2, 3)), "b": np.zeros(2, np.int64)}, r"input a is float64[2, 3]; it takes a: float32[N, 3]"),
        ({"a": np.zeros((2, 4), np.float32), "b": np.zeros(2, np.int64)}, "input a is float32[2, 4]"),
        ({"a": np.zeros(3, np.float32), "b": np.zeros(2, np.int64)}, "input a is float32[3]"),
    ],
)
def test_inputs_that_are_not_the_models_are_refused(given, message):
    with pytest.raises(EngineError) as caught:
        checked_inputs(_SIGNATURE, given)
    assert message in caught.value.message


_SIGNATURE = Signature(
    inputs=(TensorSpec(name="a", dtype="float32", shape=("N", 3)), TensorSpec(name="b", dtype="int64", shape=("N",))),
    outputs=(),
)


def _target(**options):
    return Target(name="t", backend="b", options=options)
