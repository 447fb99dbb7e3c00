"""What MLflow's ONNX flavor says of a model, and the `.onnx` file that it means, with all its weights."""

from __future__ import annotations

import posixpath
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from qpipe.errors import ModelError
from qpipe.tracking.downloads import Place, download

if TYPE_CHECKING:
    from mlflow.models import Model as Described
    from mlflow.types import Schema
    from mlflow.types import TensorSpec as DeclaredTensor

    from qpipe.records.model import Model
    from qpipe.records.tensors import TensorSpec
    from qpipe.tracking.tracker import Tracker

DESCRIPTION = "MLmodel"
LOG_IT = "export it to ONNX and log that with mlflow.onnx.log_model"


def onnx_name(description: Path, uri: str) -> str:
    """Name of the `.onnx` file of a logged model, relative to its folder, from its `MLmodel` alone.

    Raises:
        ModelError: it cannot be read, or the model is of other flavors.
    """
    flavors = _described(description, uri).flavors
    if "onnx" not in flavors:
        raise ModelError(
            f"{uri} is not of ONNX flavor: it has {', '.join(sorted(flavors)) or 'none'}",
            hint="promote another recipe of the float model" if "qpipe" in flavors else LOG_IT,
        )
    name = flavors["onnx"].get("data")
    if not isinstance(name, str) or not name:
        raise ModelError(f"the ONNX flavor of {uri} names no file (`data`) in its MLmodel", hint=LOG_IT)
    return name


def whole_model(folder: Path, name: str, uri: str) -> Path:
    """The `.onnx` file below a downloaded folder, once it and its external data are all there.

    Raises:
        ModelError: what is missing, cut, or no ONNX; nobody keeps such a folder.
    """
    from qpipe.models.digest import external_files

    path = Path(posixpath.normpath(folder / name))
    if not path.is_relative_to(folder) or not path.is_file():
        raise ModelError(f"the ONNX flavor of {uri} names {name!r}, {_instead(folder, path)}", hint=LOG_IT)
    try:
        external_files(path)
    except ModelError as error:
        message = error.message.replace(f"{folder}/", "")
        gone = str(folder) in error.hint  # where the files should lie; what else is wrong, logging again does not mend
        hint = "log the model again, with all its files" if gone else error.hint
        raise ModelError(f"{uri}: {message}", hint=hint) from error
    return path


def _instead(folder: Path, path: Path) -> str:
    if not path.is_relative_to(folder):
        return "outside the model's folder"
    held = sorted(one.name for one in path.glob("*.onnx")) if path.is_dir() else []
    if held:
        return f"a folder of {', '.join(held)}; qpipe takes one graph"
    there = sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*.onnx"))
    return f"which is not there; its .onnx files: {', '.join(there[:5]) or 'none'}"


def download_graph(tracker: Tracker, place: Place, name: str, into: Path) -> Path:
    """An `.onnx` file that lies bare among a run's artifacts, and the external data that it names beside it.

    Raises:
        ModelError: it or its data is not there, or it is no ONNX.
    """
    from qpipe.models.facts import read_facts

    path = download(tracker, place, name, into)
    for location in sorted({one.location for one in read_facts(path).external}):
        inner = PurePosixPath(location)
        if location and ".." not in inner.parts and not inner.is_absolute():
            target = into / inner.parent
            download(tracker, place, location, target)
    return whole_model(into, name, place.uri)


def told_otherwise(model: Model) -> str:
    """A line where the signature that MLflow holds of a fetched model is not that of its graph; else empty.

    The graph is what runs, and its names are what a promoted engine is called with.
    """
    description = model.file.path.parent / DESCRIPTION
    if not description.is_file():
        return ""
    signature = _described(description, model.origin).signature
    if signature is None:
        return ""
    sides = (
        ("input", signature.inputs, model.signature.inputs),
        ("output", signature.outputs, model.signature.outputs),
    )
    found = [line for role, declared, real in sides if (line := _difference(role, declared, real))]
    return f"{model.origin}: {'; '.join(found)}: the graph counts" if found else ""


def _difference(role: str, declared: Schema | None, real: tuple[TensorSpec, ...]) -> str:
    """Columns of a DataFrame say nothing of tensors; a tensor without a name is the only one."""
    from mlflow.types import TensorSpec as DeclaredTensor

    specs = {spec.name: spec for spec in real}
    tensors = [one for one in declared.inputs if isinstance(one, DeclaredTensor)] if declared else []
    named = [(str(one.name or real[0].name), one) for one in tensors]
    wrong = [name for name, _ in named if name not in specs]
    if wrong:
        return f"MLflow's signature has {role} {', '.join(wrong)}, the graph {', '.join(map(str, real))}"
    differing = [specs[name] for name, one in named if not _agree(one, specs[name])]
    return f"MLflow's signature has another shape or dtype than the graph's {role} {differing[0]}" if differing else ""


def _agree(declared: DeclaredTensor, real: TensorSpec) -> bool:
    sizes = tuple(int(size) for size in declared.shape)
    same = len(sizes) == len(real.shape) and all(
        size < 0 or not isinstance(dim, int) or size == dim for size, dim in zip(sizes, real.shape, strict=True)
    )
    return same and declared.type.name == real.dtype


def _described(description: Path, uri: str) -> Described:
    import yaml  # MLflow's own
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model as Described

    try:
        return Described.load(str(description))
    except (yaml.YAMLError, MlflowException, OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"the MLmodel of {uri} cannot be read", hint="log the model again") from error
