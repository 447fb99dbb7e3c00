"""What makes the outputs of a graph: a sigmoid says more of a task than a shape does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

SAME_NUMBERS = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that hand numbers on in another shape or dtype."""


def output_operators(path: Path) -> dict[str, str]:
    """The operator that computes each output of a model that can be read, behind what only reshapes it."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    made = {name: node for node in graph.node for name in node.output}
    return {value.name: _operator(made, value.name) for value in graph.output}


def _operator(made: dict[str, onnx.NodeProto], name: str) -> str:
    for _ in range(len(made)):  # a graph that is no graph may go in circles
        node = made.get(name)
        if node is None or node.op_type not in SAME_NUMBERS:
            return "" if node is None else node.op_type
        name = node.input[0]
    return ""
