import gzip
from dataclasses import replace

import pytest
from qpipe_tensorrt.backend import TensorRT
from qpipe_tensorrt.options import read_options
from qpipe_tensorrt.shapes import plan_profiles, profiles_of

from qpipe.errors import BuildError
from qpipe.records.tensors import ShapeRange


def span(name="x", low=1, best=4, high=8):
    return ShapeRange(name=name, low=(low, 3), best=(best, 3), high=(high, 3))


def test_one_range_is_one_profile():
    assert plan_profiles((span(), span("y")), (1, 4), "range") == ((span(), span("y")),)


def test_a_name_twice_is_two_profiles():
    profiles = plan_profiles((span(), span(low=8, best=8, high=8), span("y")), (), "range")
    assert [item.low[0] for profile in profiles for item in profile if item.name == "x"] == [1, 8]
    assert len(profiles) == 2


@pytest.mark.parametrize(("sizes", "fixed"), [((1, 4), [1, 4]), ((4, 16), [4])])
def test_batches_inside_the_range_get_their_own(sizes, fixed):
    profiles = plan_profiles((span(),), sizes, "per-batch")
    assert profiles[0] == (span(),)
    assert [(item.low, item.high) for (item,) in profiles[1:]] == [((size, 3), (size, 3)) for size in fixed]


def test_fixed_shapes_need_no_more_profiles():
    same = ShapeRange(name="x", low=(2, 3), best=(2, 3), high=(2, 3))
    assert plan_profiles((same,), (1, 2), "per-batch") == ((same,),)
    assert plan_profiles((), (1,), "per-batch") == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"best": (1, 3, 17, 16)}, r"input `input`: .* is not smallest ≤ usual ≤ largest"),
        ({"best": (4, 3, 16)}, r"input `input`: .* is not smallest ≤ usual ≤ largest"),
        ({"low": (1, 3), "best": (1, 3), "high": (8, 3)}, "input has 4 dimensions but profile 0 has 2"),
        ({"high": (8, 3, 16, 17)}, "profile has min=16, opt=16, max=17 but tensor has 16"),
    ],
)
def test_a_range_that_cannot_be_is_named(*, rtx, nets, prepared, target, tmp_path, progress, changes, message):
    ready = prepared(nets.small())
    wrong = replace(ready.shapes[0], **changes)
    with pytest.raises(BuildError, match=message):
        TensorRT().build(replace(ready, shapes=(wrong,)), target(), tmp_path, progress)


@pytest.mark.parametrize(("sizes", "expected"), [((4, 32), (1, 4, 32)), ((1, 2), (1, 1, 8))])
def test_the_range_reaches_to_every_batch_size_of_the_target(nets, prepared, target, sizes, expected):
    """Engines are timed at these sizes, whatever the calibration batch was."""
    ready = prepared(nets.small())
    [[item]] = profiles_of(ready, sizes, read_options(target()))
    assert (item.low[0], item.best[0], item.high[0]) == expected
    fixed = replace(ready.signature.inputs[0], shape=(8, 3, 16, 16))
    [[item]] = profiles_of(
        replace(ready, signature=replace(ready.signature, inputs=(fixed,))), sizes, read_options(target())
    )
    assert item == ready.shapes[0]


def tokens(low, best, high):
    return {"min": [1, low, 64], "opt": [4, best, 64], "max": [4, high, 64]}


def test_a_target_says_its_own_profiles(build, nets):
    engine = build(nets.transformer(), shapes=[{"input": tokens(1, 8, 8)}, {"input": tokens(9, 32, 128)}])
    assert next(fact.value for fact in engine.facts if fact.name == "optimization_profiles") == 2
    told = gzip.decompress((engine.path / "layers.txt.gz").read_bytes()).decode()
    assert "MinShape: [1,9,64], OptShape: [4,32,64], MaxShape: [4,128,64]" in told
    assert engine.placement.float == 0


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([{"ids": tokens(1, 8, 8)}], "options.shapes: the model has no input `ids`"),
        ([{"input": {**tokens(1, 8, 8), "max": [3, 8, 64]}}], "no profile of options.shapes serves batch size 4"),
        ([{"input": tokens(1, 9, 8)}], r"input `input`: .* is not smallest ≤ usual ≤ largest"),
    ],
)
def test_profiles_that_cannot_be_are_named(build, nets, shapes, message):
    with pytest.raises(BuildError, match=message):
        build(nets.transformer(), shapes=shapes)


def test_batch_sizes_name_the_engine(target):
    """They are in its profiles: with others it is built again."""
    few = target()
    tools = [TensorRT().check(one).toolchain for one in (few, replace(few, batch_sizes=(1, 64)))]
    assert tools[0] != tools[1]
