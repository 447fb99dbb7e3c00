"""Entry point `train`: train the digits CNN and log it to MLflow as an ONNX model."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import onnx
from train import main as train


def main(epochs: int) -> None:
    """Train in a scratch folder, log the model in this step's run, and leave its URI as a tag."""
    with TemporaryDirectory() as scratch, mlflow.start_run():
        train(Path(scratch), epochs=epochs)
        model = onnx.load(Path(scratch) / "digits.onnx")
        # Without external data: by default MLflow moves the weights out of the caller's model.
        logged = mlflow.onnx.log_model(model, name="digits", save_as_external_data=False)
        mlflow.set_tag("model_uri", logged.model_uri)


if __name__ == "__main__":
    main(int(float(sys.argv[1])))
