"""Four recipes, evaluated and gated, profile apart: what the user waits for, beside the same by hand in onnxruntime.

    QPIPE_BENCH_DATA=/path/to/data python docs/benchmarks/four_recipes.py [--only resnet20] [--rows 744]

ResNet-20 on its gate rows, and two depthwise networks of MobileNetV2's kind at 224×224 with random weights on generated
rows (CIFAR images, each pixel 7×7 times): one of 27 convolutions, the size of network that the figures were set on (3.6
ms in onnxruntime's own INT8 on one core), and MobileNetV2's full 52. Two sets of four recipes: four ways of choosing
ranges, which calibrate once, and four kinds of engine.

- `qpipe run`: without tracking and profile in a fresh folder; CPU seconds with all children.
- its kernels alone: CPU seconds inside onnxruntime for nothing but the same rows through the float model and the same
  engines, and the calibration rows through the float model once, in one process; the wall time is half of them, which
  two cores cannot beat.
- by hand (four kinds of engine): one process that calibrates, quantizes, evaluates and compares accuracies, with
  onnxruntime's default threads.

Exits with 1 where a figure is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from machine import describe_machine, require_data
from main_job import spend
from numpy.typing import NDArray

KINDS = ("none", "int8", "int8-float-stem", "fp16")
RANGES = ("minmax", "percentile", "entropy", "mse")
SETS: dict[str, list[object]] = {
    "ranges": [
        {
            "name": f"int8-{way}",
            "stages": ["fold", "calibrate", "smooth", {"quantize": {"ranges": way}}, "correct-bias"],
        }
        for way in RANGES
    ],
    "kinds": list(KINDS),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CALIBRATION = 256
BATCH = 64
LIGHT = {"resnet20": 16, "depthwise27": 2, "depthwise52": 2}
"""Rows of a run in an evaluation: few enough that activations stay in the caches."""
REPEAT = 7
"""32 × 7 = 224."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model with its rows in a folder: `model.onnx`, `calibration.npz`, `gate.npz`."""

    name: str
    wall_s: float | None = None
    cpu_s: float | None = None
    """Figures to reach; None where there is none."""


CASES = (
    Case(name="resnet20", wall_s=6),
    Case(name="depthwise27", wall_s=15, cpu_s=25),
    Case(name="depthwise52"),
)


def write_case(case: Case, folder: Path, data: Path, rows: int) -> None:
    """Model and rows of one case; labels of generated rows are the float model's answers."""
    calibration, gate = (np.load(data / f"cifar10-{role}.npz") for role in ("calibration", "gate"))
    if case.name == "resnet20":
        (folder / "model.onnx").symlink_to(data / "resnet20-cifar10.onnx")
        np.savez(folder / "calibration.npz", image=calibration["image"][:CALIBRATION])
        np.savez(folder / "gate.npz", image=gate["image"], label=gate["label"])
        return
    from quantization import SHORT, depthwise

    if case.name == "depthwise27":
        depthwise(folder / "model.onnx", blocks=SHORT, last=None)
    else:
        depthwise(folder / "model.onnx")
    large = enlarged(gate["image"][:rows])
    np.savez(folder / "calibration.npz", image=enlarged(calibration["image"][:CALIBRATION]))
    np.savez(folder / "gate.npz", image=large, label=answers(folder / "model.onnx", large))


def enlarged(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each pixel 7×7 times."""
    return np.repeat(np.repeat(images, REPEAT, 2), REPEAT, 3)


def prepared(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Images as both networks take them."""
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return ((images.astype(np.float32) / 255 - mean) / std).astype(np.float32)


def answers(model: Path, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The top class of every row."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    parts = (prepared(images[begin : begin + BATCH]) for begin in range(0, len(images), BATCH))
    return np.concatenate([session.run(None, {"input": part})[0].argmax(1) for part in parts]).astype(np.int64)


def write_pipeline(folder: Path, recipes: list[object]) -> Path:
    """The pipeline file of one case with one set of recipes."""
    import yaml

    document = {
        "name": "four",
        "model": {"path": "model.onnx"},
        "task": "classification",
        "data": {
            "inputs": {"image": "input"},
            "label": "label",
            "calibration": {"npz": "calibration.npz"},
            "gate": {"npz": "gate.npz"},
            "preprocess": {"image": {"scale": 1 / 255, "mean": list(MEAN), "std": list(STD)}},
        },
        "targets": ["cpu-local"],
        "recipes": recipes,
        "gates": {"quality": {"margin": 0.02}, "finite": {}, "size": {"at_most_ratio": 0.6}},
    }
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def by_hand(folder: Path) -> None:
    """The same job in one process with onnxruntime's own tools: three variants, evaluated beside float."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.transformers.float16 import convert_float_to_float16

    class Rows(CalibrationDataReader):
        """Calibration batches."""

        def __init__(self) -> None:
            images = np.load(folder / "calibration.npz")["image"]
            self.parts = (prepared(images[begin : begin + BATCH]) for begin in range(0, len(images), BATCH))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            """The next batch, or None."""
            part = next(self.parts, None)
            return None if part is None else {"input": part}

    graph = onnx.load(folder / "model.onnx")
    first = next(node.name for node in graph.graph.node if node.op_type == "Conv")
    for name, excluded in (("int8", []), ("int8-float-stem", [first])):
        quantize_static(
            str(folder / "model.onnx"),
            str(folder / f"{name}.onnx"),
            Rows(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
        )
    onnx.save(convert_float_to_float16(graph, keep_io_types=True), folder / "fp16.onnx")
    gate = np.load(folder / "gate.npz")
    images, label = gate["image"], gate["label"]
    found = {name: answers(folder / f"{name}.onnx", images) for name in ("model", *KINDS[1:])}
    reference = found["model"] == label
    losses = {name: float(np.mean(reference) - np.mean(top == label)) for name, top in found.items()}
    print(json.dumps(losses))


def kernels_alone(folder: Path, batch: int) -> float:
    """CPU seconds inside `InferenceSession.run` for every engine of the run here, and for the calibration rows once."""
    import onnxruntime as ort

    engines = sorted(file.parent / "model.onnx" for file in folder.glob(".qpipe/objects/*/engine.json"))
    gate, calibration = (np.load(folder / f"{role}.npz")["image"] for role in ("gate", "calibration"))
    spent = 0.0
    for model, images in ((folder / "model.onnx", calibration), *((engine, gate) for engine in engines)):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        for begin in range(0, len(images), batch):
            feed = {"input": prepared(images[begin : begin + batch])}
            begun = time.process_time()
            session.run(None, feed)
            spent += time.process_time() - begun
    return spent


def line(case: Case, recipes: str, who: str, wall_s: float, cpu_s: float, *, judged: bool, note: str = "") -> bool:
    """One line of the table; returns whether the figures were reached."""
    limits = [(wall_s, case.wall_s, "wall"), (cpu_s, case.cpu_s, "CPU")] if judged else []
    asked = [(found, limit, word) for found, limit, word in limits if limit is not None]
    reached = all(found <= limit for found, limit, _ in asked)
    figure = ", ".join(f"≤ {limit:g} {word}" for _, limit, word in asked) or "–"
    mark = ("yes" if reached else "**no**") if asked else "–"
    print(f"| {case.name} | {recipes} | {who} | {wall_s:.1f} | {cpu_s:.1f} | {figure} | {mark} | {note} |", flush=True)
    return reached


def run_case(case: Case, data: Path, rows: int) -> bool:
    """By hand first: it warms the files for neither more than for the other."""
    reached = True
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_case(case, folder, data, rows)
        hand = spend(name, str(Path(__file__).resolve()), "--by-hand", name, program=sys.executable)
        line(case, "kinds", "by hand", hand.wall_s, hand.cpu_s, judged=False, note=f"exit {hand.code}")
        for recipes, listed in SETS.items():
            pipeline = write_pipeline(folder, listed)
            ours = spend(name, "run", str(pipeline), "--no-profile", "--offline", "--json")
            cells = json.loads(ours.output)["cells"]
            note = ", ".join(f"{cell['recipe']} {cell['verdict'] or cell['status']}" for cell in cells)
            done = ours.code in {0, 3, 4}
            note = f"exit {ours.code}: {note}"
            reached &= line(case, recipes, "`qpipe run`", ours.wall_s, ours.cpu_s, judged=True, note=note) and done
            alone = kernels_alone(folder, LIGHT[case.name])
            line(case, recipes, "its kernels alone", alone / 2, alone, judged=False)
            shutil.rmtree(folder / ".qpipe")
    return reached


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=[case.name for case in CASES])
    parser.add_argument("--rows", type=int, default=744, help="generated gate rows of the 224×224 network")
    parser.add_argument("--by-hand", type=Path, help="a folder that this script has written: the loop alone")
    asked = parser.parse_args()
    if asked.by_hand is not None:
        by_hand(asked.by_hand)
        return 0
    data = require_data()
    os.environ["QPIPE_BENCH_DATA"] = str(data)
    print(describe_machine())
    print(f"\nKinds: {', '.join(KINDS)}; ranges: int8 by {', '.join(RANGES)}. {CALIBRATION} calibration rows.\n")
    print("| network | recipes | way | wall s | CPU s | figure | reached | note |\n|---|---|---|---|---|---|---|---|")
    cases = [case for case in CASES if asked.only in (None, case.name)]
    reached = [run_case(case, data, asked.rows) for case in cases]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
