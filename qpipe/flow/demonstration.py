"""The main job on a bundled model and data."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from qpipe.errors import ConfigError
from qpipe.flow.options import RunOptions

FILES = ("digits.onnx", "digits.yaml", "calibration.npz", "search.npz", "gate.npz")


def bundled() -> Path:
    """The folder of the demo model: in an installed package, or in the repository."""
    package = Path(__file__).parents[1]
    for folder in (package / "_pipelines" / "digits", package.parent / "pipelines" / "digits"):
        if folder.is_dir():
            return folder
    raise ConfigError("the demo's files are not installed", hint="reinstall qpipe-core")


def prepare_demo(folder: Path, options: RunOptions) -> tuple[Path, RunOptions]:
    """Copy the demo into `folder` and aim store and MLflow there, whatever the environment says."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copy(bundled() / name, folder / name)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}", hint="qpipe demo --folder FOLDER") from error
    root = folder.resolve()
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_REGISTRY_URI"):
        os.environ.pop(name, None)
    return folder / "digits.yaml", replace(
        options, store=str(root / ".qpipe"), tracking_uri=f"sqlite:///{root / 'mlflow.db'}"
    )


def whereto(folder: Path) -> str:
    """What to look at after the demo."""
    return (
        f"\nlook at it:  mlflow ui --backend-store-uri sqlite:///{folder}/mlflow.db\n"
        f"serve it:    MLFLOW_TRACKING_URI=sqlite:///{folder}/mlflow.db"
        " mlflow models serve -m models:/digits-cpu-local@champion --env-manager local"
    )
