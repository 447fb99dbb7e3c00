"""The `qpipe` pyfunc flavor: an engine folder, its target, and nothing that is pickled.

MLflow calls `_load_pyfunc`; digests and the machine are checked again at every load.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qpipe.errors import DataError, EngineError
from qpipe.plugins.backend import Session, Tensors
from qpipe.records.codec import decode
from qpipe.records.engine import Engine
from qpipe.records.target import Target
from qpipe.records.tensors import TensorSpec

if TYPE_CHECKING:
    from typing import TypeAlias

    import pandas as pd
    from numpy.typing import NDArray

    Input: TypeAlias = Mapping[str, object] | NDArray[np.generic] | pd.DataFrame


DESCRIPTION = "package.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What lies beside the engine folder in a logged model: all that opening it without its pipeline needs."""

    engine: str
    """Digest of the engine, so that an exchanged folder is noticed too."""
    target: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEngine:
    """An engine as it was logged, verified, with the target that opens it."""

    engine: Engine
    target: Target


class EnginePredictor:
    """A session behind MLflow's `predict`; calls come from many threads and are served one at a time."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self.engine = engine
        self._session = session
        self._turn = threading.Lock()

    def predict(self, data: Input, params: Mapping[str, object] | None = None) -> dict[str, NDArray[np.generic]]:
        """Outputs by the model's own names.

        `data`: a dict of arrays by input name, one array for a model with one input, or a DataFrame with a column
        per input (each cell a row's array), or for one input of rank 2 a column per feature.

        Raises:
            DataError: an input is missing, or its rank or fixed dimensions differ from the signature.
        """
        if params:
            raise DataError(f"an engine takes no parameters, got {', '.join(params)}", hint="send inputs alone")
        inputs = as_tensors(data, self._session.signature.inputs)
        with self._turn:
            return dict(self._session.run(inputs))


def _load_pyfunc(path: str) -> EnginePredictor:
    """MLflow's entry: `path` holds `package.json` and `engine/`.

    Raises:
        EngineError: a file is not what the manifest says, or this machine is not one that the engine requires.
    """
    return load_package(Path(path))


def load_package(package: Path) -> EnginePredictor:
    """Open the engine of a logged model, verified, through the backend that its target names."""
    from qpipe.engines import check_requirements
    from qpipe.plugins.loader import load_plugins

    found = read_package(package)
    check_requirements(found.engine)
    session = load_plugins().backend(found.engine.backend).open(found.engine, found.target)
    return EnginePredictor(found.engine, session)


def read_package(package: Path) -> LoggedEngine:
    """The engine and the target of a logged model's `data/package`, every digest verified.

    Raises:
        EngineError: a file is not what the manifest says, or the manifest not what was logged.
    """
    from qpipe.engines import read_engine

    engine = read_engine(package / "engine")
    described = _read_description(package / DESCRIPTION)
    if described.engine != engine.digest:
        raise EngineError(
            f"{package} should hold the engine {described.engine[:12]}, but holds {engine.digest[:12]}",
            hint="the model folder was changed after it was logged; log the engine again",
        )
    return LoggedEngine(engine=engine, target=described.target)


def _read_description(path: Path) -> Package:
    try:
        return decode(Package, path.read_bytes())
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} does not describe an engine", hint="log the engine again") from error


def as_tensors(data: Input, specs: tuple[TensorSpec, ...]) -> Tensors:
    """Inputs by name, in the signature's dtypes, checked against its shapes."""
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        columns = _from_frame(data, specs)
    elif isinstance(data, np.ndarray):
        columns = {_only(specs).name: data}
    else:
        columns = dict(data)
    missing = [spec.name for spec in specs if spec.name not in columns]
    unknown = sorted(set(columns) - {spec.name for spec in specs})
    if missing or unknown:
        found = f"missing {', '.join(missing)}" if missing else f"unknown {', '.join(unknown)}"
        raise DataError(f"inputs do not fit the engine: {found}", hint=f"it takes {'; '.join(map(str, specs))}")
    return {spec.name: _fit(columns[spec.name], spec) for spec in specs}


def _only(specs: tuple[TensorSpec, ...]) -> TensorSpec:
    if len(specs) != 1:
        names = ", ".join(spec.name for spec in specs)
        raise DataError(f"one array for an engine with {len(specs)} inputs", hint=f"send a dict with {names}")
    return specs[0]


def _from_frame(frame: pd.DataFrame, specs: tuple[TensorSpec, ...]) -> dict[str, object]:
    if all(spec.name in frame.columns for spec in specs):
        return {spec.name: np.stack([np.asarray(cell) for cell in frame[spec.name]]) for spec in specs}
    return {_only(specs).name: frame.to_numpy()}


def _fit(value: object, spec: TensorSpec) -> NDArray[np.generic]:
    array = _cast(np.asarray(value), spec)
    if not spec.fits(array.shape):
        raise DataError(f"input {spec.name} has shape {list(array.shape)}", hint=f"the engine takes {spec}")
    return array


def _cast(array: NDArray[np.generic], spec: TensorSpec) -> NDArray[np.generic]:
    """JSON knows two kinds of number: floats become narrower floats, integers anything that holds their values."""
    wanted = np.dtype(spec.dtype)
    if array.dtype == wanted:
        return array
    if not np.can_cast(array.dtype, wanted, casting="same_kind") and array.dtype.kind not in "iu":
        raise DataError(f"input {spec.name} is {array.dtype}", hint=f"the engine takes {spec}")
    cast = array.astype(wanted)
    if wanted.kind in "iu" and not np.array_equal(cast, array):
        raise DataError(f"input {spec.name} has values that {wanted} cannot hold", hint=f"the engine takes {spec}")
    return cast
