"""What a backend takes and gives: a prepared model, what it built, and the engine folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qpipe.records.model import OnnxFile
from qpipe.records.quantization import QuantPlan
from qpipe.records.remark import Remark
from qpipe.records.tensors import ShapeRange, Signature

Kind = Literal["measured", "estimated", "emulated", "simulated"]
"""How a number came to be; gates accept `measured` unless the pipeline says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A model after its recipe's stages, ready for a toolchain."""

    graph: OnnxFile
    """Float graph with every correction (and cast) already in it."""
    plan: QuantPlan | None
    """What to quantize and how; None for `none` and for float casts."""
    qdq: OnnxFile | None
    """The plan rendered as Q/DQ by the target's scheme, or None where there is nothing to render."""
    shapes: tuple[ShapeRange, ...]
    signature: Signature
    """Inputs and outputs as the user's model has them."""
    remarks: tuple[Remark, ...] = ()
    """What the calibration lint found; empty for recipes that do not calibrate."""

    @property
    def deployable(self) -> OnnxFile:
        """The graph that an ONNX toolchain builds from: `qdq` where there is one."""
        return self.qdq or self.graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """This can be done here and now."""

    note: str = ""
    """What the first time brings with it: a tool environment that is made then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """This cannot be done here, why, and what would help."""

    reason: str
    hint: str = ""
    impossible: bool = False
    """True where no machine could ever do it (FP8 on a GPU without it): exit code 2, found before work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Whether engines of a target can be built and run here. Must be answered without heavy imports."""

    build: Ready | Unavailable
    run: Ready | Unavailable
    fingerprint: str = ""
    """The device that would run it (CPU model and flags, GPU and driver); part of the measure key."""
    toolchain: tuple[tuple[str, str], ...] = ()
    """Names and versions of everything that shapes the engine's bytes; part of the build key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatNode:
    """A quantizable node that did not run as an integer kernel, and why."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeKernel:
    """A node of the prepared graph and the kernel that computes it."""

    node: str
    """Its name, or that of its output where it has none."""
    kernel: str
    """As the runtime names it: `QLinearConv`, `Conv`, `CaskConvolution Int8`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the quantizable nodes really run, read from the optimized graph or the profiler."""

    integer: int
    """Quantizable nodes that run as integer (or requested low-precision) kernels."""
    float: int
    """Quantizable nodes that run in float."""
    elsewhere: int
    """Nodes that run on another provider or device than asked."""
    left_in_float: tuple[FloatNode, ...] = ()
    kernels: tuple[tuple[str, int], ...] = ()
    """Kernel name and how many nodes run as it."""
    notes: tuple[str, ...] = ()
    nodes: tuple[NodeKernel, ...] = ()
    """The kernel of each node, as far as the runtime's own account of the engine tells it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A number that a toolchain gives about an engine (arena bytes, NPU cycles), gated by name."""

    name: str
    value: float
    unit: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """Something that a machine must have to load the engine, checked at load: `isa`, `arch`, `package` and so on."""

    what: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a backend gives back: files inside the work folder, and what it knows of them."""

    files: tuple[Path, ...]
    """Relative to the work folder; the first is the one that `open` loads."""
    placement: Placement | None
    facts: tuple[Fact, ...] = ()
    requires: tuple[Requirement, ...] = ()
    toolchain: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    """What the toolchain had to say of the build, a line each; the report shows them."""
    artifacts: tuple[Path, ...] = ()
    """Files beside them that no session loads (a C array, a report): kept and verified, not counted in the size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFile:
    """One file of an engine folder."""

    name: str
    sha256: str
    size_bytes: int
    artifact: bool = False
    """A file that no session loads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineManifest:
    """What `engine.json` says of an engine: all but where it lies and what it is called."""

    model: str
    model_digest: str
    recipe: str
    target: str
    backend: str
    files: tuple[EngineFile, ...]
    signature: Signature
    requires: tuple[Requirement, ...]
    toolchain: tuple[tuple[str, str], ...]
    placement: Placement | None
    facts: tuple[Fact, ...]
    kind: Kind
    notes: tuple[str, ...] = ()
    """What the toolchain had to say of the build, a line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine(EngineManifest):
    """An immutable folder: `engine.json` and the binaries it lists."""

    path: Path
    digest: str
    """SHA-256 of `engine.json`."""

    @property
    def size_bytes(self) -> int:
        """Size of the files that a session loads, without the manifest and artifacts."""
        return sum(file.size_bytes for file in self.files if not file.artifact)

    @property
    def main_file(self) -> Path:
        """The file that the backend loads."""
        return self.path / self.files[0].name
