"""The three keys of a cell, each a digest over named ingredients so that a miss can be explained."""

from __future__ import annotations

from dataclasses import replace

from qpipe.planning.sources import source_digest
from qpipe.plugins.packages import package_versions
from qpipe.records.cell import Ingredient, Key, Timing
from qpipe.records.codec import digest
from qpipe.records.engine import Availability
from qpipe.records.model import Model
from qpipe.records.recipe import Recipe
from qpipe.records.scheme import Scheme
from qpipe.records.target import Limits, Target
from qpipe.version import __version__

PREPARING = ("quant", "prepare", "records/quantization.py")
"""What shapes a prepared graph: the last one holds the defaults of a recipe's exceptions and of a plan."""


def make_key(*ingredients: tuple[str, str]) -> Key:
    """A key from (name, value) pairs, in the order in which they are shown."""
    found = tuple(Ingredient(name=name, value=value) for name, value in ingredients)
    return Key(digest=digest(found), ingredients=found)


def prepare_key(model: Model, recipe: Recipe, scheme: Scheme, calibration: str, stage_code: str = "") -> Key:
    """Model, stages, calibration bytes, scheme, and the code that prepares; `stage_code` is that of plugins."""
    return make_key(
        ("model", model.digest),
        ("recipe", digest(recipe.stages)),
        ("calibration data", calibration),
        ("scheme", digest(scheme)),
        ("qpipe", f"{__version__}+{source_digest(*PREPARING)}"),
        *((("stage code", stage_code),) if stage_code else ()),
        *package_versions("onnxruntime", "onnx"),
    )


def build_key(prepare: Key, target: Target, availability: Availability, code: str = "") -> Key:
    """The prepared model, all of the target that shapes an engine, the toolchain's versions, the backend's own code."""
    host = replace(target.host, rows=None)
    shaping = replace(target, batch_sizes=(), limits=Limits(), owner="", summary="", options={}, host=host)
    tools = ", ".join(f"{name} {number}" for name, number in availability.toolchain)
    options = make_key(*((name, str(value)) for name, value in sorted(target.options.items())))
    return make_key(
        *((item.name, item.value) for item in prepare.ingredients),
        ("target", digest(shaping)),
        ("target options", options.digest),
        ("toolchain", tools),
        *((("backend code", code),) if code else ()),
    )


def measure_key(
    build: Key, *, fingerprint: str, rows: tuple[str, str], metric: str, target: Target, timing: Timing | None
) -> Key:
    """The engine, the device, the gate rows with their preprocessing, the metric's source and the protocol."""
    protocol = "not profiled" if timing is None else digest((timing, target.batch_sizes, target.threads))
    return make_key(
        *((item.name, item.value) for item in build.ingredients),
        ("device", fingerprint),
        rows,
        *((("emulated rows", str(target.host.rows)),) if target.host.rows is not None else ()),
        ("metric", metric),
        ("measuring code", source_digest("data", "execute/work", "measure", "metrics")),
        ("protocol", protocol),
    )


def changed(before: tuple[Ingredient, ...], after: tuple[Ingredient, ...]) -> tuple[str, ...]:
    """Names of the ingredients whose values differ, in order."""
    known = {item.name: item.value for item in before}
    return tuple(item.name for item in after if known.get(item.name) != item.value)
