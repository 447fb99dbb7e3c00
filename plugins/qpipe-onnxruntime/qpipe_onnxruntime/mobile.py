"""For phones: the engine as an `.ort` file, what a minimal build needs, and what NNAPI and Core ML would take."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from qpipe.errors import BuildError, EngineError
from qpipe.measure.ort import UNASKED, OrtSession, cpu_options, refusal
from qpipe.measure.probe import FLOAT_DB, QUANTIZED_DB, agreements, probe_inputs, probe_shapes, worst
from qpipe.plugins.options import read_options
from qpipe.records.engine import Prepared
from qpipe.records.target import Target
from qpipe_onnxruntime.options import Options
from qpipe_onnxruntime.ort_format import UnknownFieldError, in_order
from qpipe_onnxruntime.session import load, session_options

ORT_MODEL = "model.ort"
OPERATORS = "model.required_operators_and_types.config"
USABILITY = "mobile-usability.txt"
_TOO_LARGE = 2**31 - 1
_MUCH_LARGER = 1.3
_COUNTS_FROM_BYTES = 2**17
"""Smaller files differ by what the format itself takes."""
_NOT_ON_ARM = "NchwcTransformer"
_VERDICT = "Model should perform well with "


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileFiles:
    """What was written beside the engine."""

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def write_mobile(prepared: Prepared, engine: Path, target: Target) -> MobileFiles:
    """Convert the engine for arm, compare it with the `.onnx` file on made-up rows, and report on NNAPI and Core ML.

    Files are relative to the engine's folder, and the same for the same engine.

    Raises:
        BuildError: onnxruntime could not convert it, or the result computes something else.
    """
    folder = engine.parent
    usability = report_usability(engine)
    (folder / USABILITY).write_text("\n".join(usability) + "\n", "utf-8")
    verdicts = tuple(line.removeprefix(_VERDICT) for line in usability if line.startswith(_VERDICT))
    notes = (f"usability by onnxruntime's tool: {'; '.join(verdicts)}",)
    if prepared.deployable.size_bytes > _TOO_LARGE:
        return MobileFiles(files=(Path(USABILITY),), notes=(*notes, "no .ort file: the format ends at 2 GB"))
    more = convert(engine)
    found = compare(prepared, engine, folder / ORT_MODEL, target)
    return MobileFiles(
        files=(Path(ORT_MODEL), Path(OPERATORS), Path(USABILITY)),
        notes=(
            f"{ORT_MODEL} (onnxruntime mobile, made for arm) agrees with {engine.name}: {found}",
            *_grown(prepared.deployable.size_bytes, folder / ORT_MODEL),
            *more,
            *notes,
        ),
    )


def _grown(size_bytes: int, mobile: Path) -> tuple[str, ...]:
    """Half-precision weights and codebooks are small in an `.onnx` file alone: the tool folds what it can."""
    ratio = mobile.stat().st_size / size_bytes
    if ratio < _MUCH_LARGER or mobile.stat().st_size < _COUNTS_FROM_BYTES:
        return ()
    return (f"{mobile.name} has {ratio:.1f} times the size: onnxruntime computes what is constant as it writes it",)


def convert(engine: Path) -> tuple[str, ...]:
    """Write `model.ort` and the operators of a minimal build beside the engine; returns what is odd about them.

    Raises:
        BuildError: onnxruntime refused.
    """
    from onnxruntime.tools.ort_format_model import create_config_from_models

    with TemporaryDirectory() as scratch, _quiet():
        model, operators = Path(scratch, ORT_MODEL), Path(scratch, OPERATORS)
        try:
            _save_for_arm(engine, model)
            create_config_from_models([model], operators, enable_type_reduction=True)
        except Exception as error:
            raise BuildError(
                f"onnxruntime cannot write an .ort file: {_refusal(error)}",
                hint="options: {mobile: false} builds the engine without it",
            ) from error
        data = model.read_bytes()
        # The tool names the file it read by its full path.
        lines = operators.read_text("utf-8").splitlines()
    kept = [f"# - {ORT_MODEL}" if line.startswith("# - ") else line for line in lines]
    (engine.parent / OPERATORS).write_text("\n".join(kept) + "\n", "utf-8")
    notes: tuple[str, ...] = ()
    try:
        data = in_order(data)
    except UnknownFieldError as problem:
        notes = (f"{ORT_MODEL} differs from build to build: this onnxruntime writes what is not known here: {problem}",)
    (engine.parent / ORT_MODEL).write_bytes(data)
    return notes


def _save_for_arm(engine: Path, model: Path) -> None:
    """What onnxruntime's `convert_onnx_models_to_ort` does for arm, but for optimizers that no session of ours runs.

    Source: onnxruntime 1.32 `tools/python/util/convert_onnx_models_to_ort.py`, which has no option that leaves one out.
    """
    import onnxruntime as ort

    settings = cpu_options(1)
    settings.optimized_model_filepath = str(model)
    settings.add_session_config_entry("session.save_model_format", "ORT")
    settings.add_session_config_entry("session.qdqisint8allowed", "1")
    providers = ["CPUExecutionProvider"]
    ort.InferenceSession(str(engine), settings, providers=providers, disabled_optimizers=[_NOT_ON_ARM, UNASKED])


def _refusal(error: Exception) -> str:
    """The tool's reason; it looks element types up by number, and has none of 4 bits."""
    if isinstance(error, KeyError) and error.args[0] in onnx.TensorProto.DataType.values():
        return f"its tool does not know the element type {onnx.TensorProto.DataType.Name(error.args[0])}"
    return refusal(error)[0]


def compare(prepared: Prepared, engine: Path, mobile: Path, target: Target) -> str:
    """How well both files agree on rows drawn from a fixed seed, in words.

    Raises:
        BuildError: the `.ort` file cannot be loaded, or computes something else.
    """
    feed = probe_inputs(prepared, probe_shapes(prepared))
    options = session_options(target, read_options(Options, target))
    try:
        wanted, found = (OrtSession(load(path, options), prepared.signature).run(feed) for path in (engine, mobile))
    except EngineError as error:
        raise BuildError(f"{mobile.name} cannot be run: {error.message}") from error
    except Exception as error:
        raise BuildError(f"{mobile.name} cannot be loaded: {refusal(error)[0]}") from error
    agreed = worst(agreements(wanted, found))
    if agreed.db < (FLOAT_DB if prepared.plan is None else QUANTIZED_DB):
        raise BuildError(
            f"{mobile.name} does not compute what {engine.name} computes: {agreed.output}: {agreed}",
            hint="options: {mobile: false} builds the engine without it; report this to onnxruntime",
        )
    return str(agreed)


def report_usability(path: Path) -> tuple[str, ...]:
    """What onnxruntime's own checker says of NNAPI and Core ML, as lines; a maybe is a reason to try on a phone.

    Raises:
        BuildError: the checker cannot read the graph.
    """
    from onnxruntime.tools.mobile_helpers.usability_checker import analyze_model

    text = io.StringIO()
    logger = logging.Logger("mobile-usability", logging.INFO)
    logger.addHandler(logging.StreamHandler(text))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            analyze_model(path, logger=logger)
    except Exception as error:
        raise BuildError(
            f"onnxruntime's mobile usability checker cannot read the graph: {refusal(error)[0]}",
            hint="options: {mobile: false} builds the engine without it",
        ) from error
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    return tuple(line for line in lines if str(path) not in line)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the tools print and log."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the tool leaves the files that it reads to the collector
            yield
    finally:
        logging.disable(before)
