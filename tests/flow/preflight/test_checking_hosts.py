"""A sample of the gate rows on an emulator, where rows belong together."""

from dataclasses import dataclass

import pytest

from qpipe.errors import TargetError
from qpipe.flow.preflight.checks import _check_groups
from qpipe.records.data import DataSpec, RoleSpec
from qpipe.records.target import Host, Target


@dataclass
class Pipeline:
    data: DataSpec


def _pipeline(**groups: str) -> Pipeline:
    roles = tuple(RoleSpec(role=role, group=groups.get(role)) for role in ("calibration", "gate"))
    return Pipeline(data=DataSpec(inputs=(), label=None, preprocess=(), roles=roles))


def test_a_sample_that_tears_groups_apart_is_refused_before_work():
    arm = Target(name="arm64", backend="b", host=Host(kind="emulator", address="qemu-aarch64", rows=200))
    with pytest.raises(
        TargetError, match=r"arm64: 200 rows on an emulator would tear groups apart \(column 'writer'\)"
    ):
        _check_groups(arm, _pipeline(gate="writer"))
    _check_groups(arm, _pipeline(calibration="writer"))
    _check_groups(Target(name="here", backend="b"), _pipeline(gate="writer"))
