"""Entry point `quantize`: qpipe as a step of this MLflow run. Its exit code is that of the step."""

from __future__ import annotations

import sys

import mlflow

import qpipe

DATA = {
    "inputs": {"image": "input"},
    "label": "label",
    "calibration": {"npz": "digits/calibration.npz"},
    "search": {"npz": "digits/search.npz"},
    "gate": {"npz": "digits/gate.npz", "slices": ["label"]},
    "preprocess": {"image": {"scale": 0.0625, "mean": [0.5], "std": [0.25]}},
}
GATES = {
    "quality": {"metric": "accuracy", "margin": 0.02},
    "slices": {"by": "label", "margin": 0.15},
    "size": {"at_most_ratio": 0.4},
    "finite": {},
}


def main(model_uri: str) -> int:
    """Quantize, measure and gate; promotion is the next entry point."""
    with mlflow.start_run():
        result = qpipe.step(model_uri=model_uri, name="digits", task="classification", data=DATA, gates=GATES)
        mlflow.set_tag("qpipe_run_id", result.run_id)
        for cell in result.cells:
            sys.stderr.write(f"{cell.label}: {cell.decision or cell.status}\n")
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
