"""The recipes that need no writing: a name and a scheme give the stages."""

from __future__ import annotations

from collections.abc import Callable

from qpipe.errors import TargetError
from qpipe.records.recipe import REFERENCE, Recipe, StageSpec
from qpipe.records.scheme import Scheme


def _static(scheme: Scheme) -> tuple[StageSpec, ...]:
    if not scheme.ops:
        raise TargetError(
            f"scheme {scheme.name!r} has no integer kernels, so recipe 'int8' cannot run on it",
            hint="use recipe 'none', or a target whose scheme lists integer operators",
        )
    return tuple(StageSpec(name=name) for name in ("fold", "calibrate", "smooth", "quantize", "correct-bias"))


def _dynamic(scheme: Scheme) -> tuple[StageSpec, ...]:
    if not scheme.dynamic_ops:
        raise TargetError(
            f"scheme {scheme.name!r} has no dynamically quantized kernels, so recipe 'dynamic' cannot run on it",
            hint="use recipe 'int8' there",
        )
    return (StageSpec(name="dynamic"),)


def _fp16(_: Scheme) -> tuple[StageSpec, ...]:
    return (StageSpec(name="fp16"),)


_RECIPES: dict[str, Callable[[Scheme], tuple[StageSpec, ...]]] = {
    REFERENCE: lambda _: (),
    "int8": _static,
    "dynamic": _dynamic,
    "fp16": _fp16,
}
BUILTIN_RECIPES: tuple[str, ...] = tuple(_RECIPES)


def builtin_recipe(name: str, scheme: Scheme) -> Recipe:
    """The recipe of that name for one scheme.

    Raises:
        TargetError: there is no such recipe, or the scheme has no kernels for it.
    """
    if name not in _RECIPES:
        raise TargetError(f"no recipe {name!r}", hint=f"the built-in recipes are {', '.join(BUILTIN_RECIPES)}")
    return Recipe(name=name, stages=_RECIPES[name](scheme))
