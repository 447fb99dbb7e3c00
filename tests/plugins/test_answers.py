"""A backend's answers are taken for no more than they are: its mistakes are told as its own, in one line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from qpipe.errors import PluginError, TargetError
from qpipe.plugins.answers import as_record, ask_availability, ask_scheme
from qpipe.records.engine import Availability, Built, Placement, Ready
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target

TARGET = Target(name="board", backend="mine")


def answering(answer):
    def answers(_target):
        if isinstance(answer, Exception):
            raise answer
        print("vendor 1.0")
        return answer

    def check(target):
        return answers(target)

    def scheme(target):
        return answers(target)

    return SimpleNamespace(name="mine", check=check, scheme=scheme)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "gives NoneType, not Availability"),
        ((Ready(), Ready()), "gives tuple, not Availability"),
        (KeyError("device"), "raised KeyError: 'device'"),
        (Availability(build=Ready(), run=True), "gives Availability with run: true is not Ready or Unavailable"),
        (Availability(build=Ready(), run=Ready(), toolchain={"onnx": "1"}), 'toolchain: {"onnx": "1"} is not a list'),
        (Availability(build=Ready(), run=Ready(), toolchain=(("onnx", None),)), "toolchain[0][1]: null is not str"),
        (Availability(build=Ready(), run=Ready(), toolchain=(("onnx",),)), 'toolchain[0]: ["onnx"] is not 2 values'),
    ],
)
def test_an_answer_of_check_that_is_none_is_told(answer, told, capsys):
    with pytest.raises(PluginError) as caught:
        ask_availability(answering(answer), TARGET)
    assert caught.value.message.startswith("backend mine: check(board) ")
    assert told in caught.value.message
    assert capsys.readouterr().out == ""


def test_what_users_wrote_wrongly_is_not_the_plugins():
    with pytest.raises(TargetError, match="no option"):
        ask_availability(answering(TargetError("no option 'x'")), TARGET)


def test_a_scheme_is_one():
    assert ask_scheme(answering(Scheme(name="s", ops=["Conv"])), TARGET) == Scheme(name="s", ops=("Conv",))
    with pytest.raises(PluginError, match=r"backend mine: scheme\(board\) gives str, not Scheme"):
        ask_scheme(answering("int8"), TARGET)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"files": "model.bin"}, 'files: "model.bin" is not a list'),
        ({"placement": {"integer": 1}}, "placement: Placement lacks float, elsewhere"),
        ({"placement": Placement(integer=np.int64(1), float=0, elsewhere=0)}, "int64 is no part of a record"),
        ({"facts": ("arena",)}, 'facts[0]: "arena" is not an object'),
    ],
)
def test_what_was_built_is_told_truly_or_not_at_all(fields, told):
    built = Built(**{"files": (Path("model.bin"),), "placement": None, **fields})
    with pytest.raises(PluginError) as caught:
        as_record(built, Built, "backend mine: build")
    assert caught.value.message.startswith("backend mine: build gives Built with ")
    assert told in caught.value.message


def test_lists_and_text_become_what_the_record_has():
    found = as_record(Built(files=["model.bin"], placement=None), Built, "backend mine: build")
    assert found == Built(files=(Path("model.bin"),), placement=None)
