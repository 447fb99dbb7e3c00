"""A target that quantizes more than another one of the same recipe says what that costs, in numbers."""

from dataclasses import replace

import pytest
from measured_examples import evaluation

from qpipe.records.engine import FloatNode, Placement
from qpipe.records.explanation import Attribution, Explanation, Step
from qpipe.report.beside import compare_targets, measured_speed
from qpipe.report.explain import render_explanation
from qpipe.report.insight import insight


@pytest.fixture
def pair(result):
    """One recipe on two targets: onnxruntime leaves a node in float that LiteRT quantizes."""
    base = next(cell for cell in result.cells if cell.recipe == "int8" and cell.evidence is not None)

    def one(target, left, steps, sqnr_db):
        nodes = tuple(FloatNode(name=name, op="Conv", reason="an image is faster in float") for name in left)
        evidence = replace(
            base.evidence,
            evaluation=replace(evaluation(0.97), sqnr_db=sqnr_db),
            placement=Placement(integer=3, float=len(left), elsewhere=0, left_in_float=nodes),
            attribution=Attribution(role="gate", rows=16, steps=steps),
        )
        return replace(base, key=f"key-{target}", target=target, evidence=evidence)

    steps = (
        Step(name="float nodes", metric=None, sqnr_db=45.46, nodes=("conv1",)),
        Step(name="quantized", metric=None, sqnr_db=43.17),
    )
    return one("x86-litert", (), steps, 43.0), one("cpu-x86-vnni", ("conv1", "other"), steps[1:], 45.4)


LINE = (
    "cpu-x86-vnni leaves conv1 in float (an image is faster in float): SQNR 45.4 dB there, 43.0 dB here "
    "on the rows that judged them; "
    "integers in these nodes cost 2.3 dB (first 16 rows)"
)


def test_the_gap_between_two_targets_has_an_owner(pair):
    ours, theirs = pair
    assert compare_targets(ours, pair) == (LINE,)
    assert compare_targets(theirs, pair) == ()  # nothing of it is quantized there


def test_other_recipes_models_and_targets_that_quantize_the_same_are_not_compared(pair):
    ours, theirs = pair
    also = replace(theirs, evidence=replace(theirs.evidence, placement=Placement(integer=4, float=0, elsewhere=0)))
    others = (replace(theirs, recipe="fp16"), replace(theirs, model="other"), replace(theirs, evidence=None), also)
    assert compare_targets(ours, (ours, *others)) == ()
    assert compare_targets(replace(ours, evidence=None), pair) == ()


def test_a_part_of_the_nodes_is_no_reason_for_the_whole_cost(pair):
    ours, theirs = pair
    first, last = ours.evidence.attribution.steps
    steps = (replace(first, nodes=("conv1", "attention")), last)
    more = replace(ours, evidence=replace(ours.evidence, attribution=replace(ours.evidence.attribution, steps=steps)))
    (line,) = compare_targets(more, (more, theirs))
    assert line.endswith("the other nodes of step `float nodes` are integers there too")


@pytest.mark.parametrize(
    ("low", "float_ms", "said"), [(0.9, 0.05, ""), (1.1, 5.0, "slower than float"), (1.1, 0.05, "this small")]
)
def test_an_engine_that_is_slower_says_so_and_what_a_small_model_lacks(pair, low, float_ms, said):
    cell, _ = pair
    batch = cell.evidence.first_batch
    baseline = tuple((name, replace(one, value=float_ms)) for name, one in batch.baseline_ms)
    slow = replace(batch, baseline_ms=baseline, ratio=replace(batch.ratio, low=low, median=1.2, high=1.3))
    profile = replace(cell.evidence.profile, batches=(slow,))
    found = measured_speed(replace(cell, evidence=replace(cell.evidence, profile=profile)))
    assert said in found
    assert ("slower" in found) is bool(said)
    assert ("small" in found) is (said == "this small")


def test_the_report_and_the_explanation_show_it(pair):
    from rich.console import Console

    assert LINE in insight(pair[0], None, pair)
    one = Explanation(
        cell="digits/int8/x86-litert",
        metric="accuracy",
        role="gate",
        rows=16,
        steps=pair[0].evidence.attribution.steps,
        layers=(),
        placement=None,
        remarks=(),
        beside=(LINE,),
    )
    console = Console(record=True, width=300)
    console.print(render_explanation(one))
    assert LINE in console.export_text()
