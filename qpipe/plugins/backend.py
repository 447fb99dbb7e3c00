"""Backends: the objects that check, build and open engines for the targets that name them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from qpipe.records.engine import Availability, Built, Engine, Kind, Prepared
from qpipe.records.scheme import Scheme
from qpipe.records.target import Target
from qpipe.records.tensors import Signature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Tensors: TypeAlias = "Mapping[str, NDArray[np.generic]]"
"""Tensors by name."""


class Progress(Protocol):
    """Where long work says how far it is. Calls are cheap; `total` may be unknown."""

    def step(self, name: str, *, total: int | None = None) -> None:
        """A new step begins, e.g. `step("calibrate", total=16)`."""
        ...

    def advance(self, amount: int = 1) -> None:
        """Part of the current step is done."""
        ...


class Session(Protocol):
    """An open engine. The same session serves evaluation and the timed run."""

    @property
    def kind(self) -> Kind:
        """How outputs come to be: `measured` on the hardware, `emulated`, `simulated`."""
        ...

    @property
    def signature(self) -> Signature:
        """Names, shapes and dtypes of the user's model, whatever layout the engine has inside."""
        ...

    def run(self, inputs: Tensors) -> Tensors:
        """Outputs by name in the signature's order, for one batch of inputs by name.

        Inputs are left alone; outputs belong to the caller, and a later run does not write into them.

        Raises:
            EngineError: the session is closed.
        """
        ...

    def close(self) -> None:
        """Free the device. Closing twice is fine."""
        ...


@runtime_checkable
class DeviceTimed(Protocol):
    """Optional: a session whose engine runs on another machine brings that machine's clocks with it."""

    @property
    def device_ns(self) -> tuple[int, int]:
        """Wall and CPU nanoseconds of the last `run`, measured on the device around the runtime's call alone."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """Optional: a session whose engine runs on another machine says what it saw there."""

    @property
    def device_memory_bytes(self) -> tuple[int, int]:
        """Peak resident set of the process on the device: before the engine was loaded, and until now."""
        ...

    def device_conditions(self) -> tuple[tuple[str, str], ...]:
        """Machine, governor, clock and temperatures of the device now.

        Raises:
            EngineError: the device went away.
        """
        ...


@runtime_checkable
class CrossChecked(Protocol):
    """Optional: a session that can ask another program how fast its engine is. Beside a profile, never the profile."""

    def cross_check(self) -> str:
        """What that program says, in words; called after the timed rounds."""
        ...


@runtime_checkable
class Remarking(Protocol):
    """Optional: a session that has something to say of its runs (an emulated one: how far it is from this machine)."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """One line each, over all runs so far."""
        ...


@runtime_checkable
class Backend(Protocol):
    """Four short methods; vendor libraries are imported inside `build` and `open` alone."""

    name: str

    def check(self, target: Target) -> Availability:
        """Whether engines can be built and run here. No heavy imports.

        Raises:
            TargetError: the target's `options` or scheme are not ones of this backend.
        """
        ...

    def scheme(self, target: Target) -> Scheme:
        """The arithmetic that this target really runs."""
        ...

    def build(self, prepared: Prepared, target: Target, workdir: Path, progress: Progress) -> Built:
        """Make the engine's files inside `workdir`. Runs in a guarded child process.

        Raises:
            BuildError: the toolchain refused; the message has its reason and names the node.
        """
        ...

    def open(self, engine: Engine, target: Target) -> Session:
        """A session on a verified engine folder. Runs in a guarded child process.

        Raises:
            EngineError: this machine is not one that the engine requires; the message says what to do.
        """
        ...


@runtime_checkable
class Learning(Protocol):
    """Optional: a backend whose builder learns from build to build (kernels that it timed on a device)."""

    def learnt_key(self, target: Target) -> str:
        """Names what builds for this target may learn from each other: device, driver, versions. Empty: nothing."""
        ...

    def build_with(self, prepared: Prepared, target: Target, workdir: Path, progress: Progress, learnt: Path) -> Built:
        """`build`, with a folder of what earlier builds of that key left; what stands in it afterwards is kept.

        Raises:
            BuildError: as `build` does; nothing is kept then.
        """
        ...


@runtime_checkable
class Setup(Protocol):
    """Optional: a backend that needs a tool environment of its own (`qpipe setup NAME`)."""

    def setup(self, target: Target, progress: Progress) -> None:
        """Create it; idempotent; offline it says what to run."""
        ...
