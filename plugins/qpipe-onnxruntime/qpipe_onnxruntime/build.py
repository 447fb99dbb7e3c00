"""Build: write the graph, load it as it will be run, and read the placement from what onnxruntime made of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import onnx

from qpipe.errors import BuildError, ModelError
from qpipe.measure.cpu import read_cpu
from qpipe.measure.ort import refusal
from qpipe.models.digest import external_files
from qpipe.plugins.options import read_options
from qpipe.records.engine import Built, Prepared
from qpipe.records.target import Target
from qpipe_onnxruntime.machine import choose_scheme, notes, requirements, toolchain
from qpipe_onnxruntime.mobile import MobileFiles, write_mobile
from qpipe_onnxruntime.options import Options
from qpipe_onnxruntime.placement import read_placement
from qpipe_onnxruntime.session import load, session_options

if TYPE_CHECKING:
    from qpipe.plugins.backend import Progress

MAIN = "model.onnx"


def build_engine(prepared: Prepared, target: Target, workdir: Path, progress: Progress) -> Built:
    """An engine in `workdir`: the deployable graph, its external data, and what onnxruntime runs it as.

    Raises:
        BuildError: onnxruntime refused the graph; the message has its reason.
    """
    quantized = prepared.plan is not None or prepared.qdq is not None
    progress.step("write the graph")
    files, changes = write_graph(prepared.deployable.path, workdir, target, quantized=quantized)
    progress.step("load and optimize")
    optimized = optimize(workdir / MAIN, target)
    mobile = MobileFiles(files=(), notes=())
    if read_options(Options, target).mobile:
        progress.step("write and compare the .ort file")
        mobile = write_mobile(prepared, workdir / MAIN, target)
    cpu = read_cpu()
    placement = read_placement(
        float_graph=_read(prepared.graph.path),
        deployable=_read(prepared.deployable.path),
        optimized=optimized.graph,
        plan=prepared.plan,
        quantized=quantized,
        built_on=cpu.arch,
        target_arch=target.arch or cpu.arch,
    )
    return Built(
        files=files,
        artifacts=mobile.files,
        placement=replace(placement, notes=(*placement.notes, *changes, *mobile.notes)),
        requires=requirements(target, cpu, quantized=quantized),
        toolchain=toolchain(),
        notes=notes(target, cpu),
    )


def _read(path: Path) -> onnx.GraphProto:
    """The graph without its external data."""
    try:
        return onnx.load(path, load_external_data=False).graph
    except Exception as error:
        raise BuildError(f"{path} is not a readable ONNX file: {refusal(error)[0]}") from error


def write_graph(
    source: Path, workdir: Path, target: Target, *, quantized: bool
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The engine's files relative to `workdir`, and what was changed in a quantized graph for x86-64 on the way.

    Raises:
        BuildError: external data is missing or outside the model's folder.
    """
    scheme = choose_scheme(target, read_cpu())
    if quantized and scheme.activation == "uint8" and read_options(Options, target).graph_optimization == "all":
        from qpipe_onnxruntime.lower.choices import choice_of
        from qpipe_onnxruntime.lower.passes import lower

        if changes := lower(source, workdir / MAIN, choice_of(scheme)):
            written = (data.relative_to(workdir.resolve()) for data in external_files(workdir / MAIN))
            return (Path(MAIN), *written), changes
    return copy_model(source, workdir), ()


def copy_model(source: Path, workdir: Path) -> tuple[Path, ...]:
    """The graph as `model.onnx` with its external data beside it; the files relative to `workdir`.

    Raises:
        BuildError: external data is missing or outside the model's folder.
    """
    try:
        external = external_files(source)
    except ModelError as error:
        raise BuildError(error.message, hint=error.hint) from error
    shutil.copyfile(source, workdir / MAIN)
    files = [Path(MAIN)]
    for data in external:
        location = data.relative_to(source.parent.resolve())
        (workdir / location).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data, workdir / location)
        files.append(location)
    return tuple(files)


def optimize(path: Path, target: Target) -> onnx.ModelProto:
    """The graph as onnxruntime will run it, after all its transforms; weights are left out.

    Raises:
        BuildError: onnxruntime refused the graph.
    """
    with TemporaryDirectory() as folder:
        settings = session_options(target, read_options(Options, target))
        settings.optimized_model_filepath = f"{folder}/optimized.onnx"
        # Weights go to a file of their own: a graph over 2 GB could not be written otherwise.
        settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
        settings.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        try:
            load(path, settings)
        except Exception as error:
            reason, hint = refusal(error)
            raise BuildError(f"onnxruntime refuses this graph: {reason}", hint=hint) from error
        return onnx.load(f"{folder}/optimized.onnx", load_external_data=False)
