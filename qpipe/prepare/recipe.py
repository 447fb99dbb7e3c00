"""The recipes that need no writing: a name and a scheme give the stages."""

from __future__ import annotations

from collections.abc import Callable

from qpipe.errors import TargetError
from qpipe.records.quantization import STEM
from qpipe.records.recipe import BUILTIN_RECIPES, REFERENCE, Recipe, StageSpec
from qpipe.records.scheme import Scheme


def _static(scheme: Scheme) -> tuple[StageSpec, ...]:
    if not scheme.ops:
        raise TargetError(
            f"scheme {scheme.name!r} has no integer kernels",
            hint="use recipe 'none', or a target whose scheme lists integer operators",
        )
    return tuple(StageSpec(name=name) for name in ("fold", "calibrate", "smooth", "quantize", "correct-bias"))


def _static_but_stem(scheme: Scheme) -> tuple[StageSpec, ...]:
    keep = StageSpec(name="quantize", params={"keep_float": (STEM,)})
    return tuple(keep if spec.name == "quantize" else spec for spec in _static(scheme))


def _dynamic(scheme: Scheme) -> tuple[StageSpec, ...]:
    if not scheme.dynamic_ops:
        raise TargetError(
            f"scheme {scheme.name!r} has no dynamically quantized kernels",
            hint="use recipe 'int8' there",
        )
    return (StageSpec(name="dynamic"),)


def _fp16(_: Scheme) -> tuple[StageSpec, ...]:
    return (StageSpec(name="fp16"),)


def _bf16(scheme: Scheme) -> tuple[StageSpec, ...]:
    if "bfloat16" not in scheme.float_types:
        raise TargetError(f"scheme {scheme.name!r} has no bfloat16 kernels", hint="use recipe 'fp16' or 'none' there")
    return (StageSpec(name="bf16"),)


def _weight_only(bits: int, code: str = "linear") -> Callable[[Scheme], tuple[StageSpec, ...]]:
    def stages(scheme: Scheme) -> tuple[StageSpec, ...]:
        if bits not in scheme.weight_only_bits:
            widths = ", ".join(map(str, scheme.weight_only_bits)) or "none"
            raise TargetError(
                f"scheme {scheme.name!r} has no weight-only kernel of {bits} bits", hint=f"widths it has: {widths}"
            )
        _refuse_code(code, scheme)
        return (StageSpec(name="weight-only", params={"bits": bits, "code": code}),)

    return stages


def _refuse_code(code: str, scheme: Scheme) -> None:
    if code not in scheme.weight_only_codes:
        raise TargetError(
            f"scheme {scheme.name!r} has no weight-only kernel for {code} codes",
            hint=f"codes it has: {', '.join(scheme.weight_only_codes)}",
        )


def _kmeans(scheme: Scheme) -> tuple[StageSpec, ...]:
    _refuse_code("kmeans", scheme)
    return (StageSpec(name="weight-only", params={"bits": 5, "code": "kmeans"}),)


_RECIPES: dict[str, Callable[[Scheme], tuple[StageSpec, ...]]] = {
    REFERENCE: lambda _: (),
    "int8": _static,
    "int8-float-stem": _static_but_stem,
    "dynamic": _dynamic,
    "fp16": _fp16,
    "bf16": _bf16,
    "int4": _weight_only(4),
    "nf4": _weight_only(4, "nf4"),
    "weight-only-int8": _weight_only(8),
    "kmeans": _kmeans,
}


def builtin_recipe(name: str, scheme: Scheme) -> Recipe:
    """The recipe of that name for one scheme.

    Raises:
        TargetError: there is no such recipe, or the scheme has no kernels for it.
    """
    if name not in _RECIPES:
        raise TargetError(f"no recipe {name!r}", hint=f"the built-in recipes are {', '.join(BUILTIN_RECIPES)}")
    return Recipe(name=name, stages=_RECIPES[name](scheme))


def has_kernels(name: str, scheme: Scheme) -> bool:
    """Whether the scheme has kernels for the built-in recipe of that name."""
    try:
        builtin_recipe(name, scheme)
    except TargetError:
        return False
    return True
