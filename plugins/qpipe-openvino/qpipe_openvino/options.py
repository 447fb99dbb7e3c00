"""The `options:` of an OpenVINO target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from qpipe.errors import TargetError
from qpipe.records.target import Target

Shapes = Literal["free", "fixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How an engine is compiled when it is opened."""

    shapes: Shapes = "free"
    """`fixed` compiles the engine once more for each shape of inputs that it meets: faster runs, seconds at first."""


def read_options(target: Target) -> Options:
    """The target's options.

    Raises:
        TargetError: an unknown key or value.
    """
    if unknown := sorted(set(target.options) - set(Options.__dataclass_fields__)):
        known = ", ".join(Options.__dataclass_fields__)
        raise TargetError(
            f"target {target.name}: backend openvino has no option {unknown[0]!r}", hint=f"known: {known}"
        )
    found = target.options.get("shapes", "free")
    for shapes in get_args(Shapes):
        if found == shapes:
            return Options(shapes=shapes)
    raise TargetError(
        f"target {target.name}: option shapes is {found!r}", hint=f"one of: {', '.join(get_args(Shapes))}"
    )
