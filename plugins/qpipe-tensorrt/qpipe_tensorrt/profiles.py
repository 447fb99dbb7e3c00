"""Optimization profiles, given to the builder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpipe.errors import BuildError
    from qpipe_tensorrt.api import Builder, IBuilderConfig, INetworkDefinition, ITensor
    from qpipe_tensorrt.job import Span


def add_profiles(
    builder: Builder, config: IBuilderConfig, network: INetworkDefinition, profiles: tuple[tuple[Span, ...], ...]
) -> int:
    """Give the profiles to the builder; how many it took.

    Raises:
        BuildError: a range that is not possible, with the input's name.
    """
    dynamic = {tensor.name for tensor in _inputs(network) if any(size < 0 for size in tensor.shape)}
    if not dynamic:
        return 0
    for spans in profiles:
        profile = builder.create_optimization_profile()
        for name, low, best, high in spans:
            if name in dynamic:
                _check(name, low, best, high)
                profile.set_shape(name, low, best, high)
        if config.add_optimization_profile(profile) < 0:
            raise _wrong(f"TensorRT refuses the shape ranges {', '.join(_told(*span) for span in spans)}")
    return len(profiles)


def _inputs(network: INetworkDefinition) -> list[ITensor]:
    return [network.get_input(index) for index in range(network.num_inputs)]


def _check(name: str, low: tuple[int, ...], best: tuple[int, ...], high: tuple[int, ...]) -> None:
    same_rank = len(low) == len(best) == len(high)
    if not same_rank or any(not 0 <= a <= b <= c for a, b, c in zip(low, best, high, strict=False)):
        raise _wrong(f"input `{name}`: {_told(name, low, best, high)} is not smallest ≤ usual ≤ largest")


def _told(name: str, low: tuple[int, ...], best: tuple[int, ...], high: tuple[int, ...]) -> str:
    return f"{name}: {low} / {best} / {high}"


def _wrong(message: str) -> BuildError:
    from qpipe.errors import BuildError

    return BuildError(message)
