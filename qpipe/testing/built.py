"""What `build` makes, and what it says of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from qpipe.engines import check_requirements
from qpipe.plugins.backend import Backend
from qpipe.records.engine import Placement
from qpipe.records.target import Target
from qpipe.testing.cases import Case, build_case, node_names
from qpipe.testing.subject import Subject
from qpipe.testing.surroundings import bytes_below, left_as_found


class BuiltContract(Subject):
    """Engines are whole, repeatable, and truly described; nothing else is touched."""

    def test_build_says_what_it_made(self, case: Case) -> None:
        """Files (the manifest has checked them), requirements, toolchain, reasons for what stayed float."""
        assert case.built.requires, "an engine requires something of a machine: a package, an arch, a GPU"
        assert case.built.toolchain, "Built.toolchain is empty: name what shaped the engine, with its version"
        check_requirements(case.engine)
        assert all(np.isfinite(fact.value) and fact.name for fact in case.built.facts)

    def test_placement_is_of_this_model(self, case: Case) -> None:
        """Counts that can be, reasons, and nodes that are there; the recipe `none` has no integer kernels."""
        if (placement := case.built.placement) is None:
            pytest.skip("it tells no placement: the gate `placement` is INCONCLUSIVE")
        _assert_possible(placement)
        unknown = [node.node for node in placement.nodes if node.node not in node_names(case.prepared)]
        assert not unknown, f"placement tells of node {unknown[:1]}, which prepared.graph does not have"
        integer = placement.integer if case.recipe == "none" else 0
        assert not integer, f"placement tells of {integer} integer kernels, and the recipe none is float32"

    def test_build_is_repeatable_and_touches_nothing_else(
        self, case: Case, backend: Backend, target: Target, environment: Mapping[str, str], tmp_path: Path
    ) -> None:
        """The same files again, byte by byte; the model, the process and other folders are as before."""
        before = bytes_below(case.prepared.graph.path.parent, without=case.engine.path)
        with left_as_found("build", environment):
            again = build_case(backend, target, case.model, case.prepared, case.recipe, tmp_path / "engine")
        assert again.built.files == case.built.files
        assert again.built.toolchain == case.built.toolchain
        assert again.built.requires == case.built.requires
        untouched = bytes_below(case.prepared.graph.path.parent, without=case.engine.path) == before
        assert untouched, "build writes beside the model that it was given: write to `workdir`"
        other = [file.name for file in again.engine.files if file not in case.engine.files]
        told = f"two builds of one model differ in {other[:1]}: a path, a time, or no seed; or say why in builds_differ"
        assert not other or self.builds_differ, told


def _assert_possible(placement: Placement) -> None:
    counts = (placement.integer, placement.float, placement.elsewhere)
    assert min(counts) >= 0, f"placement counts {counts}: none is below zero"
    told = (
        f"placement names {len(placement.left_in_float)} nodes in left_in_float and counts {placement.float} in float"
    )
    assert len(placement.left_in_float) <= placement.float, told
    assert all(node.name and node.reason for node in placement.left_in_float), "left_in_float has names and reasons"
