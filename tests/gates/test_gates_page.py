"""The page about gates names every gate and key, and its example is one that a pipeline may have."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import yaml

from qpipe.gates import check_gates
from qpipe.records.verdict import GateSpec

PAGE = (Path(__file__).parents[2] / "docs" / "gates.md").read_text(encoding="utf-8")
OF_EVERY_GATE = ("required", "recipes", "targets", "accept", "type")


def test_the_example_is_accepted(made):
    block = yaml.safe_load(PAGE.split("```yaml")[1].split("```")[0])["gates"]
    specs = [
        GateSpec(name=name, type=name, params={key: kept for key, kept in keys.items() if key not in OF_EVERY_GATE})
        for name, keys in block.items()
    ]
    assert len(specs) == 10
    check_gates(specs, made.gates, made.metrics["accuracy"])


def test_every_gate_and_key_is_on_the_page(made):
    wanted = set(made.gates) | {field.name for gate in made.gates.values() for field in fields(gate.params)}
    assert {name for name in wanted if f"`{name}`" not in PAGE} == set()
