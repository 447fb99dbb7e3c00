"""The builder's layer dump (`ProfilingVerbosity.DETAILED`), one record per layer of the finished engine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LINE = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: \[(?P<inputs>| \{.*?\})\]"
    r"(?:, Constants: \[(?P<constants>| \{.*?\})\])?, Outputs: \[(?P<outputs>| \{.*?\})\]"
    r"(?P<rest>(?:, (?:ParameterType|Tactic).*?)?), StreamId: \d+.*?, Metadata: (?P<nodes>.*)$"
)
_TACTIC = re.compile(r"Tactic(?:Name|Value): ([^,]*)")
_PROFILE = re.compile(r"\[profile (\d+)\]")
_PART = re.compile(r"_myl(\d+)_\d+$")  # kernels of one profile share a number; not all of them name their profile
_DTYPE = re.compile(r"Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\](?=\x1f|\x1e|\[ONNX Layer: |$)")
_ROUND = "Roun"  # the compiler names a generated kernel after its operations: …MulMinMaxRounCast…
_GENERATED = re.compile(r"__myl_((?:[A-Z][a-z0-9]+)+)_myl")
_OPERATION = re.compile(r"[A-Z][a-z0-9]+")
_MOVES = frozenset({"Move", "Repl", "Conc", "Tran", "Resh", "Cast", "Slic", "Copy", "Pad"})
_OTHER = ("shape_call", "ShapeHostToDevice", "signal", "wait", "reformat", "Reformat", "NoOp", "Constant")
_PRODUCT = re.compile(r"gemm|mha|conv|Fc|Conv|Gemm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One kernel of the engine."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    """Types of the inputs by TensorRT's names: `Int8`, `Half`, `BFloat16`, `FP8`, `Float`."""
    constants: tuple[str, ...]
    outputs: tuple[str, ...]
    tactic: str
    nodes: tuple[str, ...]
    """ONNX nodes that it was made from."""
    profile: int = 0
    """The optimization profile that it runs in."""

    @property
    def operations(self) -> tuple[str, ...]:
        """Operations that a generated kernel is named after; empty for others."""
        match = _GENERATED.search(self.name)
        return tuple(_OPERATION.findall(match[1])) if match else ()

    @property
    def multiplies(self) -> bool:
        """Whether it holds a convolution or a matrix product."""
        if self.kind in ("kgen", "runtime_fusion"):
            return bool(_PRODUCT.search(self.name))
        return self.kind not in _OTHER and not self.moves

    @property
    def roundings(self) -> int:
        """How often a generated kernel rounds to integers."""
        return self.operations.count(_ROUND)

    @property
    def moves(self) -> bool:
        """Whether it only moves, copies or converts data."""
        operations = self.operations
        return self.kind in ("reformat", "Reformat") or (bool(operations) and set(operations) <= _MOVES)


class UnreadableDumpError(ValueError):
    """A layer dump in a form that this version of the plugin does not know."""


def parse_layers(dump: str) -> tuple[Layer, ...]:
    """Layers in the order of execution; an empty dump has none.

    Raises:
        UnreadableDumpError: a line that this version of the plugin cannot read.
    """
    body = dump.partition("\n\nI/O Tensors")[0].removeprefix("Layers:\n")
    lines = [line for line in body.splitlines() if line.strip()]
    profiles: dict[str, int] = {}
    for line in lines:
        if told := _PROFILE.search(line):
            profiles[_part(line)] = int(told[1])
    return tuple(_layer(line, profiles.get(_part(line), 0)) for line in lines)


def by_profile(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], ...]:
    """Layers of each optimization profile: one inference runs through one of these alone."""
    numbers = sorted({layer.profile for layer in layers})
    return tuple(tuple(layer for layer in layers if layer.profile == number) for number in numbers)


def _part(line: str) -> str:
    name = line.removeprefix("Name: ").partition(", LayerType: ")[0]
    found = _PART.search(name)
    return found[1] if found else name


def _layer(line: str, profile: int) -> Layer:
    match = _LINE.match(line)
    if match is None:
        raise UnreadableDumpError(f"a line of TensorRT's layer dump cannot be read: {line[:120]}")
    return Layer(
        name=match["name"],
        kind=match["kind"],
        inputs=tuple(_DTYPE.findall(match["inputs"])),
        constants=tuple(_DTYPE.findall(match["constants"] or "")),
        outputs=tuple(_DTYPE.findall(match["outputs"])),
        tactic=" ".join(_TACTIC.findall(match["rest"])),
        nodes=tuple(_NODE.findall(match["nodes"])),
        profile=profile,
    )
