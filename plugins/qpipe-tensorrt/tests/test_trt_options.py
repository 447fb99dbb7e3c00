import pytest
from qpipe_tensorrt.options import read_options

from qpipe.errors import TargetError


@pytest.mark.parametrize(
    ("options", "found", "right"),
    [
        ({"product": "trt"}, "options.product is 'trt'", "tensorrt-rtx, tensorrt"),
        ({"compute_capability": "ada"}, "options.compute_capability is 'ada'", '"8.9"'),
        ({"builds": 0}, "options.builds is 0", "from 1"),
        ({"builds": True}, "options.builds is True", "whole number"),
        ({"optimization_level": 6}, "options.optimization_level is 6", "0 to 5"),
        ({"precisions": ["int9"]}, "options.precisions is ['int9']", "int8"),
        ({"precisions": "int8"}, "options.precisions is 'int8'", "a list"),
        ({"tf32": "yes"}, "options.tf32 is 'yes'", "true or false"),
        ({"profiles": "all"}, "options.profiles is 'all'", "per-batch"),
        ({"timing_cache": "/tmp"}, "options.timing_cache is '/tmp'", "true or false"),
        ({"workspace": 1}, "unknown option `workspace`", "workspace_bytes"),
        ({"version_compat": True}, "unknown option `version_compat`; did you mean 'version_compatible'?", "builds"),
        ({"shapes": {"x": [1]}}, "options.shapes is {'x': [1]}", "a list"),
        ({"shapes": [{"x": {"min": [1], "max": [8]}}]}, "options.shapes is [{'x'", "opt: [8, 3, 224, 224]"),
        ({"shapes": [{"x": {"min": [1], "opt": ["8"], "max": [8]}}]}, "options.shapes is [{'x'", "max: ["),
    ],
)
def test_a_wrong_option_is_named_with_what_would_be_right(target, options, found, right):
    with pytest.raises(TargetError) as error:
        read_options(target(**options))
    assert found in error.value.message
    assert right in error.value.hint
    assert error.value.code == 2


def test_defaults_and_numbers(target):
    options = read_options(target(capability="12.0", also=["8.9"], builds=3, precisions=["int8", "fp8"]))
    assert options.capabilities == ("12.0", "8.9")
    assert options.builds == 3
    assert options.vendor.module == "tensorrt_rtx"
    assert (options.tf32, options.simulate, options.workspace_bytes) == (True, False, None)
    assert options.reproducible
    assert not read_options(target(capability="9.0", product="tensorrt")).reproducible
