"""A backend for tests: runs the float model with onnxruntime and lies as its target's `options` say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.errors import BuildError, EngineError, TargetError
from qpipe.plugins.backend import Backend
from qpipe.plugins.hookspecs import hookimpl
from qpipe.plugins.options import read_options
from qpipe.records.engine import Availability, Built, Fact, Placement, Ready, Requirement, Unavailable
from qpipe.records.scheme import Scheme
from qpipe.testing.script import Script, act

if TYPE_CHECKING:
    from qpipe.plugins.backend import Progress, Session
    from qpipe.records.engine import Engine, Prepared
    from qpipe.records.target import Target

SCHEME = Scheme(name="fake", dynamic_ops=("MatMul", "Gemm"), float_types=("float32", "float16"))
_MAIN, _WEIGHTS = "model.onnx", "weights.bin"


def fake_site() -> Path:
    """A folder that makes this an installed plugin when it is on `sys.path`, in guarded children too."""
    return Path(__file__).with_name("site")


@hookimpl
def qpipe_backends() -> Iterable[Backend]:
    """One backend, `fake`."""
    return [FakeBackend()]


class FakeBackend:
    """Honest unless told otherwise; see `Script` for what it can be told."""

    name = "fake"

    def check(self, target: Target) -> Availability:
        """As the script says.

        Raises:
            TargetError: an unknown option or scheme.
        """
        script = read_options(Script, target)
        self.scheme(target)
        return Availability(
            build=_state(script.build_unavailable, impossible=script.impossible),
            run=_state(script.run_unavailable),
            fingerprint=script.fingerprint,
            toolchain=(("fake", script.version),),
        )

    def scheme(self, target: Target) -> Scheme:
        """One scheme, `fake`."""
        if target.scheme not in {"", SCHEME.name}:
            raise TargetError(
                f"target {target.name}: backend fake has no scheme {target.scheme!r}", hint="its scheme is fake"
            )
        return SCHEME

    def build(self, prepared: Prepared, target: Target, workdir: Path, progress: Progress) -> Built:
        """The float graph, whatever the plan says.

        Raises:
            BuildError: the script says so.
        """
        import onnx

        script = read_options(Script, target)
        progress.step("build")
        act(script.build, BuildError("the fake backend refuses to build", hint="the target's options say so"))
        onnx.save_model(onnx.load(prepared.graph.path), workdir / _MAIN)
        quantized = prepared.qdq is not None or prepared.plan is not None
        files = [Path(_MAIN)]
        if quantized and script.weight_bytes:
            (workdir / _WEIGHTS).write_bytes(bytes(script.weight_bytes))
            files.append(Path(_WEIGHTS))
        if script.undeclared:
            (workdir / "left.log").write_text("left behind")
        return Built(
            files=tuple(files),
            placement=_placement(script, quantized=quantized),
            facts=tuple(
                Fact(name=name, value=value, unit="", kind="estimated") for name, value in sorted(script.facts.items())
            ),
            requires=(Requirement(what="package", value="onnxruntime"),),
            toolchain=(("fake", script.version),),
        )

    def open(self, engine: Engine, target: Target) -> Session:
        """A session that runs the float graph and lies.

        Raises:
            EngineError: the script says so, or that it cannot run here.
        """
        from qpipe.testing.session import FakeSession

        script = read_options(Script, target)
        if script.run_unavailable:
            raise EngineError(script.run_unavailable, hint="the target's options say so")
        act(script.open, EngineError("the fake backend refuses to open", hint="the target's options say so"))
        return FakeSession(engine, script, threads=target.threads)


def _state(reason: str, *, impossible: bool = False) -> Ready | Unavailable:
    return Unavailable(reason=reason, hint="the target's options say so", impossible=impossible) if reason else Ready()


def _placement(script: Script, *, quantized: bool) -> Placement:
    integer, rest, elsewhere = script.integer_nodes, script.float_nodes, script.elsewhere_nodes
    if not quantized:
        return Placement(integer=0, float=integer + rest, elsewhere=elsewhere)
    return Placement(integer=integer, float=rest, elsewhere=elsewhere)
