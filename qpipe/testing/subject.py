"""What the suite is told of a backend, and what it builds and opens for all its tests."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import ClassVar

import pytest

from qpipe.plugins.answers import ask_availability
from qpipe.plugins.backend import Backend, Session
from qpipe.records.engine import Availability, Unavailable
from qpipe.records.target import Target
from qpipe.testing.cases import Case, make_case
from qpipe.testing.models import small_batches, write_small_model


class Subject:
    """Override the class variables where a runtime is coarser."""

    recipes: ClassVar[tuple[str, ...]] = ("none", "int8")
    """Recipes that the backend must be able to build."""
    float_tolerance: ClassVar[float] = 1e-3
    """Largest error of the float engine, relative to the largest output."""
    int8_cosine: ClassVar[float] = 0.95
    """Smallest cosine of int8 and float outputs over all rows."""
    light_modules: ClassVar[tuple[str, ...]] = ()
    """Packages that `check` may import because they are quick; without them the standard library and qpipe alone."""
    builds_differ: ClassVar[str] = ""
    """Why two builds of one model are not the same bytes (the toolchain times kernels); empty where they are."""

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        """The backend under test."""
        raise NotImplementedError(f"{cls.__name__} gives a fixture `backend`")

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Target:
        """A target of it; one that this machine can build and, if possible, run."""
        raise NotImplementedError(f"{cls.__name__} gives a fixture `target`")

    @pytest.fixture(scope="class")
    @classmethod
    def state(cls, backend: Backend, target: Target) -> Availability:
        """What `check` says."""
        return ask_availability(backend, target)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def environment(cls, backend: Backend, target: Target) -> Mapping[str, str]:  # noqa: ARG003  (yours come first)
        """The environment variables before the first build."""
        return dict(os.environ)

    @pytest.fixture(scope="class", params=["none", "int8"])
    @classmethod
    def case(
        cls,
        request: pytest.FixtureRequest,
        backend: Backend,
        target: Target,
        state: Availability,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Case:
        """An engine of the small network for each recipe."""
        recipe = str(request.param)
        cls.skip_unless_built(recipe, state)
        folder = tmp_path_factory.mktemp(f"contract-{recipe}")
        return make_case(backend, target, write_small_model(folder), recipe, small_batches)

    @classmethod
    def skip_unless_built(cls, recipe: str, state: Availability) -> None:
        """Where a recipe cannot be built here, the test ends with the reason."""
        if recipe not in cls.recipes:
            pytest.skip(f"{cls.__name__} does not build {recipe}")
        if isinstance(state.build, Unavailable):
            pytest.skip(state.build.reason)

    @pytest.fixture
    def session(self, backend: Backend, target: Target, state: Availability, case: Case) -> Iterator[Session]:
        """An open session on the engine."""
        if isinstance(state.run, Unavailable):
            pytest.skip(state.run.reason)
        session = backend.open(case.engine, target)
        lacks = [name for name in ("kind", "signature", "run", "close") if not hasattr(session, name)]
        assert not lacks, f"open gives {type(session).__name__}, which lacks {', '.join(lacks)}"
        yield session
        session.close()
