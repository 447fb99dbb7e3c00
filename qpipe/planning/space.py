"""The space that is left once every enumerated candidate was tried: how the static recipe may still be turned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qpipe.prepare import builtin_recipe
from qpipe.records.pipeline import RecipeSpec
from qpipe.records.recipe import StageSpec

if TYPE_CHECKING:
    from qpipe.records.scheme import Scheme

BASE = "int8"
"""The recipe that is turned."""
RANGES = ("mse", "minmax", "percentile", "entropy")
WEIGHTS = ("max", "mse")
ALPHAS = ("0.7", "0.3", "0.4", "0.5", "0.6", "0.8")
"""The stage's own value first. Source: Xiao et al., SmoothQuant (arXiv:2211.10438), section 5.5: best between 0.4 and
0.8 on most models."""
MOST_KEPT = 4
"""Sensitive nodes that may go back to float, each by itself (16 subsets), and at most half of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What may be chosen for one model on one target."""

    stages: tuple[StageSpec, ...]
    """Of the recipe that is turned."""
    nodes: tuple[str, ...] = ()
    """Patterns of the most sensitive nodes, the worst first."""
    smooths: bool = False
    """Whether SmoothQuant has something to move in this model: else its alpha changes nothing."""
    equalizes: bool = False
    """Whether two layers of this model can be evened out."""

    @property
    def choices(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Every dimension with its values as text, the recipe's own value first."""
        found = [("ranges", RANGES), ("weights", WEIGHTS)]
        found += [("alpha", ALPHAS)] if self.smooths else []
        found += [("equalize", ("no", "yes"))] if self.equalizes else []
        return (*found, *((f"keep {node}", ("no", "yes")) for node in self.nodes))

    @property
    def size(self) -> int:
        """How many points it has."""
        return math.prod(len(values) for _, values in self.choices)


Point = tuple[tuple[str, str], ...]
"""One value per dimension, in the order of the space."""


def static_space(scheme: Scheme, *, nodes: tuple[str, ...], smooths: bool, equalizes: bool) -> Space:
    """The space of the static recipe on one target, for a model with these `nodes`, the most sensitive first.

    Raises:
        TargetError: the scheme has no integer kernels.
    """
    kept = nodes[: min(MOST_KEPT, len(nodes) // 2)]  # never all of them: something must run in integer
    return Space(stages=builtin_recipe(BASE, scheme).stages, nodes=kept, smooths=smooths, equalizes=equalizes)


def own_point(space: Space) -> Point:
    """The recipe as it is."""
    return tuple((name, values[0]) for name, values in space.choices)


def named_points(space: Space) -> dict[str, Point]:
    """The points that have names of their own: the recipe as it is, evened out, or with its worst nodes in float."""
    own = own_point(space)
    found = {BASE: own}
    if space.equalizes:
        found[f"{BASE}-equalized"] = _with(own, {"equalize": "yes"})
    for count in range(1, len(space.nodes) + 1):
        found[f"{BASE}-keep{count}"] = _with(own, {f"keep {node}": "yes" for node in space.nodes[:count]})
    return found


def _with(point: Point, changes: dict[str, str]) -> Point:
    return tuple((name, changes.get(name, value)) for name, value in point)


def recipe_at(space: Space, point: Point, name: str) -> RecipeSpec:
    """The recipe that a point stands for."""
    chosen = dict(point)
    kept = [node for node in space.nodes if chosen.get(f"keep {node}") == "yes"]
    stages: list[StageSpec] = []
    for stage in space.stages:
        if stage.name == "calibrate" and chosen.get("equalize") == "yes":
            stages.append(StageSpec(name="equalize", params={"required": True}))
        stages.append(_turned(stage, chosen, kept))
    return RecipeSpec(name=name, stages=tuple(stages))


def _turned(stage: StageSpec, chosen: dict[str, str], kept: list[str]) -> StageSpec:
    if stage.name == "smooth" and "alpha" in chosen:
        return StageSpec(name=stage.name, params={**stage.params, "alpha": float(chosen["alpha"])})
    if stage.name == "quantize":
        own = {"ranges": chosen["ranges"], "weights": chosen["weights"], "keep_float": kept}
        return StageSpec(name=stage.name, params={**stage.params, **own})
    return stage


def describe_point(point: Point) -> str:
    """`ranges=entropy weights=mse`, with the nodes that stay float."""
    kept = [name.removeprefix("keep ") for name, value in point if name.startswith("keep ") and value == "yes"]
    rest = [f"{name}={value}" for name, value in point if not name.startswith("keep ")]
    return " ".join([*rest, *([f"keep_float=[{', '.join(kept)}]"] if kept else [])])
