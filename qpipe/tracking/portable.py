"""An engine for people who cannot install qpipe: an MLflow model that needs onnxruntime and mlflow alone."""

from __future__ import annotations

import warnings
from pathlib import Path

from qpipe.engines import read_engine
from qpipe.errors import EngineError
from qpipe.tracking.models import mlflow_signature

CODE = Path(__file__).with_name("portable_model.py")


def export_portable(engine_folder: Path, into: Path) -> Path:
    """Write the engine as an MLflow model folder whose code stands in it; returns the folder.

    It checks the engine's digests and required CPU flags at load, and runs on one thread on the CPU. Log it with
    `mlflow.log_artifacts`, or serve the folder itself: `mlflow models serve -m FOLDER --env-manager local`.

    Raises:
        EngineError: the engine is not an ONNX file for ONNX Runtime, or was changed; or `into` exists.
    """
    engine = read_engine(engine_folder)
    if engine.main_file.suffix != ".onnx" or engine.backend != "onnxruntime":
        raise EngineError(
            f"the engine {engine.digest[:12]} is of backend {engine.backend}",
            hint="portable are engines of onnxruntime",
        )
    if into.exists():
        raise EngineError(f"{into} exists already", hint="name a folder that does not")
    import mlflow.pyfunc

    runtime = dict(engine.toolchain).get("onnxruntime")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MLflow wants an input example; the signature says it all
        mlflow.pyfunc.save_model(
            path=str(into),
            python_model=str(CODE),
            artifacts={"engine": str(engine_folder)},
            signature=mlflow_signature(engine),
            pip_requirements=["mlflow", "numpy", f"onnxruntime=={runtime}" if runtime else "onnxruntime"],
        )
    return into
