"""Sessions of this backend: CPU execution provider alone, fixed threads, no spinning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.errors import EngineError
from qpipe.measure.cpu import read_cpu
from qpipe.measure.ort import OrtSession, computation, cpu_options, refusal
from qpipe.plugins.options import read_options
from qpipe.records.engine import Engine
from qpipe.records.target import Target
from qpipe_onnxruntime.machine import choose_scheme
from qpipe_onnxruntime.options import Options

if TYPE_CHECKING:
    import onnxruntime as ort

PROVIDER = "CPUExecutionProvider"


def session_options(target: Target, options: Options) -> ort.SessionOptions:
    """The settings that building, evaluating and timing share."""
    import onnxruntime as ort

    settings = cpu_options(target.threads)
    levels = ort.GraphOptimizationLevel
    settings.graph_optimization_level = {
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[options.graph_optimization]
    settings.enable_cpu_mem_arena = options.memory_arena
    if choose_scheme(target, read_cpu()).activation == "int8":
        # What arm64 does anyway. Elsewhere int8 pairs would become uint8 ones, with which onnxruntime 1.32 refuses
        # quantizers of its own in opset 21 and later (their `output_dtype` stays int8).
        settings.add_session_config_entry("session.qdqisint8allowed", "1")
    return settings


def load(path: Path, settings: ort.SessionOptions) -> ort.InferenceSession:
    """An onnxruntime session on the CPU provider alone.

    Raises:
        EngineError: onnxruntime put the session on another provider than asked.
    """
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), settings, providers=[PROVIDER])
    check_provider(session)
    return session


def check_provider(session: ort.InferenceSession) -> None:
    """Refuse a session that may run on another provider than the CPU's.

    Raises:
        EngineError: with the providers that it has.
    """
    if (found := session.get_providers()) != [PROVIDER]:
        raise EngineError(f"an engine was asked to run on {PROVIDER} and may run on {', '.join(found)}")


def open_engine(engine: Engine, target: Target) -> OrtSession:
    """A session on an engine folder, in the names and dtypes of the user's model.

    Raises:
        EngineError: onnxruntime refused the file, or its inputs and outputs are not the model's.
    """
    try:
        options = session_options(target, read_options(Options, target))
        session = load(engine.main_file, options)
    except EngineError:
        raise
    except Exception as error:
        reason, hint = refusal(error)
        raise EngineError(f"onnxruntime cannot load engine {engine.digest[:12]}: {reason}", hint=hint) from error
    loaded = [file for file in engine.files if not file.artifact]
    computes = computation(loaded[0].sha256, options) if len(loaded) == 1 else ""
    return OrtSession(session, engine.signature, computes=computes)
