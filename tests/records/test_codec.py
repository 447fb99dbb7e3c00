"""Records to JSON and back: what comes back is what went in, as pydantic reads it too."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from qpipe.execute.jobs import EvaluationPair
from qpipe.records.cell import Timing
from qpipe.records.codec import decode, digest, encode, plain, unreadable
from qpipe.records.data import DataSpec, Preprocess, RoleSpec
from qpipe.records.engine import Ready, Unavailable
from qpipe.records.evidence import Evaluation, NotMeasured
from qpipe.records.pipeline import Pipeline
from qpipe.records.recipe import Recipe, StageSpec
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target
from qpipe.records.verdict import Decision

TARGET = Target(name="t", backend="b", options={"a": [1, 2.5, None, {"b": True}]}, batch_sizes=(1, 8))
DATA = DataSpec(
    inputs=(("image", "x"),),
    label=None,
    preprocess=(Preprocess(column="image", scale=1.0, mean=(0.5,), std=(1.0,)),),
    roles=(RoleSpec(role="gate", npz=Path("rows/gate.npz")),),
)
RECIPE = Recipe(name="r", stages=(StageSpec(name="quantize", params={"keep_float": ["a", "b"], "deep": {"c": 1}}),))


@pytest.mark.parametrize("record", [TARGET, DATA, RECIPE, Timing(), Scheme(name="s"), Ready(), NotMeasured(reason="r")])
def test_a_record_comes_back_as_pydantic_reads_it(record):
    back = decode(type(record), encode(record))
    assert back == record
    assert back == TypeAdapter(type(record)).validate_json(encode(record))
    assert digest(back) == digest(record)


def test_records_of_a_union_are_told_apart():
    missing = NotMeasured(reason="no labels")
    assert decode(EvaluationPair, encode(EvaluationPair(engine=missing, reference=missing))).engine == missing
    away = Unavailable(reason="no driver", hint="install it")
    assert decode(Ready | Unavailable, encode(away)) == away
    assert decode(Ready | Unavailable, encode(Ready())) == Ready()
    assert isinstance(decode(Evaluation | NotMeasured, '{"reason": "x"}'), NotMeasured)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting"),
        ("[]", "[] is not an object"),
        ('{"backend": "b"}', "Target lacks name"),
        ('{"name": 3, "backend": "b"}', ".name: 3 is not str"),
        ('{"name": "t", "backend": "b", "threads": true}', ".threads: true is not int"),
        ('{"name": "t", "backend": "b", "threads": 1.5}', ".threads: 1.5 is not int"),
        ('{"name": "t", "backend": "b", "batch_sizes": [1, "8"]}', '.batch_sizes[1]: "8" is not int'),
        ('{"name": "t", "backend": "b", "limits": {"timeout_s": "long"}}', '.limits.timeout_s: "long" is not a number'),
        ('{"name": "t", "backend": "b", "host": {"kind": "mars"}}', '.host.kind: "mars" is not one of'),
    ],
)
def test_what_is_no_record_is_refused_with_its_place(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        decode(Target, text)


def test_lists_and_mappings_of_a_plugins_record():
    assert decode(list[tuple[int, ...]], "[[1, 2], []]") == [(1, 2), ()]
    assert decode(dict[str, list[float]], '{"a": [1]}') == {"a": [1.0]}


def test_a_verdict_word_is_an_enum_again():
    assert decode(Decision, encode(Decision.PASS)) is Decision.PASS
    with pytest.raises(ValueError, match="is not one of 'PASS'"):
        decode(Decision, '"MAYBE"')


def test_keys_of_a_newer_record_are_ignored():
    assert decode(NotMeasured, '{"reason": "x", "colour": "red"}') == NotMeasured(reason="x")


@dataclass(frozen=True)
class Plain:
    pair: tuple[str, int]
    maybe: float | None
    many: tuple[float, ...]


PYDANTIC = TypeAdapter(Plain)


@given(
    st.builds(
        Plain,
        st.tuples(st.text(), st.integers()),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(tuple),
    )
)
def test_whatever_a_record_holds(record):
    assert decode(Plain, encode(record)) == record == PYDANTIC.validate_json(encode(record))


def test_a_whole_number_in_a_float_field_is_a_float():
    found = decode(Plain, '{"pair": ["a", 1], "maybe": 3, "many": []}').maybe
    assert isinstance(found, float)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_json_for_what_json_lacks(value):
    with pytest.raises(ValueError, match="Out of range"):
        encode(Plain(pair=("a", 1), maybe=value, many=()))


def test_what_is_no_record_is_not_encoded():
    with pytest.raises(TypeError, match="set is no part of a record"):
        plain(replace(TARGET, options={"a": {1, 2}}))
    with pytest.raises(TypeError, match="records hold no"):
        decode(set[int], "[1]")


def test_every_annotation_of_a_pipeline_is_readable():
    with pytest.raises(ValueError, match="Pipeline lacks"):
        decode(Pipeline, "{}")


class Settings(BaseModel):
    level: int


@dataclass(frozen=True)
class Inner:
    day: date


@dataclass(frozen=True)
class Fine:
    bits: int
    names: tuple[str, ...] = ()
    pair: tuple[int, float] | None = None
    inner: Mapping[str, list["Fine"]] | None = None
    folder: Path = Path()
    anything: object = None


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Fine, ""),
        (set[str], "field is set[str]"),
        (frozenset[int] | None, "field is frozenset[int]"),
        (Settings, "field is Settings"),
        (Inner, "field.day is date"),
        (tuple[Inner, ...], "field[].day is date"),
        (list[tuple[int, date]], "field[][] is date"),
        (Mapping[str, set[str]], "field{} is set[str]"),
        (dict[int, str], "field{} has keys that are int"),
        (tuple, "field is tuple"),
        ("Nowhere", "field: name 'Nowhere' is not defined"),
    ],
)
def test_fields_that_no_record_can_have_are_named(kind, said):
    record = dataclass(type("Params", (), {"__annotations__": {"field": kind}, "__module__": __name__}))
    assert unreadable(record) == said
