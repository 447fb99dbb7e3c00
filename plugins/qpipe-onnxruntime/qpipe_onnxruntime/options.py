"""The `options:` section of a target of this backend."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qpipe.errors import TargetError

if TYPE_CHECKING:
    from qpipe.records.target import Target

Level = Literal["basic", "extended", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How onnxruntime loads an engine of this target."""

    graph_optimization: Level = "all"
    """`all` writes quantized graphs for x86-64 in onnxruntime's own integer operators; `extended` leaves Q/DQ graphs as
    they are and layouts too, `basic` leaves out the fusions into integer kernels as well."""
    memory_arena: bool = True
    """Keep freed memory for the next run: faster, and a higher peak."""
    mobile: bool = False
    """Write an `.ort` file with the operators that a minimal build needs, and a report on NNAPI and Core ML."""
    python: str = "python3"
    """Python with onnxruntime on a host that is not this machine."""


def read_options(target: Target) -> Options:
    """The target's options.

    Raises:
        TargetError: an unknown key, or a value of the wrong type; the message names it.
    """
    if not target.options:
        return Options()
    from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

    strict = with_config(ConfigDict(extra="forbid", strict=True))(Options)
    try:
        return TypeAdapter(strict).validate_json(json.dumps(dict(target.options), default=str))
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise TargetError(
            f"target {target.name}: options of backend onnxruntime: {found}",
            hint=f"known options: {', '.join(Options.__dataclass_fields__)}",
        ) from error
