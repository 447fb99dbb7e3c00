"""A pipeline of the small network in a folder, for tests of what reads one."""

import json
from pathlib import Path

import numpy as np

from qpipe.testing.models import small_rows, write_small_model


def write_small_pipeline(folder: Path, **changes: object) -> Path:
    """`small.yaml` with its model and rows; a change replaces a top-level key."""
    write_small_model(folder)
    for number, role in enumerate(("calibration", "gate")):
        np.savez(folder / f"{role}.npz", image=small_rows(64, number), label=np.zeros(64, np.int64))
    document = {
        "name": "small",
        "model": {"path": "small.onnx"},
        "task": "classification",
        "data": {
            "label": "label",
            "calibration": {"npz": "calibration.npz"},
            "gate": {"npz": "gate.npz", "slices": ["label"]},
        },
        "gates": {"quality": {"margin": 0.05}},
    }
    path = folder / "small.yaml"
    path.write_text(json.dumps({**document, **changes}))
    return path
