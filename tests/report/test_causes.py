"""The first lines of `qpipe explain`: the cause where it is known, and what runs."""

import pytest

from qpipe.records.engine import FloatNode, Placement
from qpipe.records.explanation import Explanation, Layer, Step
from qpipe.records.remark import Remark
from qpipe.report.causes import float_groups, what_runs, why_worse

FAR = Remark(kind="other-rows", subject="x", message="31.8 % of the other rows' values lie outside")


def layer(name, alone):
    return Layer(tensor=name, node=name, op="Conv", sqnr_db=9.0, low=0, high=1, clipped=0, alone_db=alone)


def explained(*alone, remarks=(), engine=30.0, note=""):
    steps = (
        Step(name="float", metric=0.9, sqnr_db=None),
        Step(name="quantized", metric=0.8, sqnr_db=30.0),
        Step(name="engine", metric=None if note else 0.8, sqnr_db=engine, note=note),
    )
    layers = tuple(layer(f"t{number}", db) for number, db in enumerate(alone))
    told = {"cell": "m/int8/t", "metric": "accuracy", "role": "search", "rows": 9, "placement": None}
    return Explanation(**told, steps=steps, layers=layers, remarks=remarks)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (explained(36.0, 0.3, 38.0), "(step engine); one layer stands out: t1 (Conv) has 0.3 dB alone, the next 36 dB"),
        (explained(36.0, 35.0), "no layer stands out: the worst alone are t1 (35 dB), t0 (36 dB)"),
        (explained(36.0, 0.3, remarks=(FAR,)), "; look at calibration first: x: 31.8 % of"),
        (explained(36.0, 0.3, engine=20.0), "lost by what the backend makes of step quantized (30.0 dB)"),
        (explained(36.0, 0.3, engine=None, note="no board"), "30.0 dB, accuracy 0.9 → 0.8 (step quantized)"),
        (explained(), "SQNR 30.0 dB, accuracy 0.9 → 0.8 (step engine)"),
    ],
)  # fmt: skip
def test_the_loss_has_its_cause_in_the_first_line(one, said):
    assert said in why_worse(one)
    assert why_worse(one).startswith("SQNR ")


def test_nodes_in_float_stand_under_their_reason():
    nodes = [FloatNode(name=f"n{number}", op="Conv", reason="wide") for number in range(5)]
    nodes.insert(2, FloatNode(name="[/x]", op="Gemm", reason="kept"))
    assert float_groups(nodes) == (
        "5 in float: wide: n0 (Conv), n1 (Conv), n2 (Conv) and 2 more",
        "1 in float: kept: [/x] (Gemm)",
    )


def test_operators_that_convert_values_are_named_beside_integer_kernels():
    kernels = (("QLinearConv", 3), ("Transpose", 2), ("DequantizeLinear", 1), ("Flatten", 1))
    kernels += (("ConvTranspose", 1), ("QLinearConvTranspose", 1), ("TRANSPOSE_CONV", 1))
    found = Placement(integer=3, float=1, elsewhere=2, kernels=kernels)
    assert what_runs(found) == (
        "3 of 4 quantizable nodes run as integer kernels; to convert values: 2 Transpose, 1 DequantizeLinear; "
        "2 operators run elsewhere"
    )
