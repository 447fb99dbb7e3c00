"""Train the demo model: a small CNN on scikit-learn's digits, in plain numpy, exported as ONNX.

    python pipelines/digits/train.py [FOLDER]

writes `digits.onnx`, `calibration.npz`, `search.npz` and `gate.npz` (columns `image` uint8 [n, 1, 8, 8] with values
0 to 16, `label` int64 [n]). The three roles and the training rows are disjoint, but for calibration, which is drawn
from the training rows. Needs scikit-learn; takes about ten seconds.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
CHANNELS = (1, 32, 96, 96)
CLASSES = 10


def patches(x: Array) -> Array:
    """3×3 neighbourhoods with zero padding: [n, c, h, w] → [n, h, w, c·9]."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.ascontiguousarray(windows.transpose(0, 2, 3, 1, 4, 5)).reshape(*x.shape[:1], *x.shape[2:], -1)


def fold(grad: Array, shape: tuple[int, ...]) -> Array:
    """Adjoint of `patches`."""
    n, c, h, w = shape
    grad = grad.reshape(n, h, w, c, 3, 3)
    out = np.zeros((n, c, h + 2, w + 2), np.float32)
    for i in range(3):
        for j in range(3):
            out[:, :, i : i + h, j : j + w] += grad[..., i, j].transpose(0, 3, 1, 2)
    return out[:, :, 1:-1, 1:-1]


def initial(rng: np.random.Generator) -> list[Array]:
    """He-initialised weights: three convolutions and a linear layer, each followed by its bias."""
    weights: list[Array] = []
    for fan_in, width in itertools.pairwise(CHANNELS):
        weights += [rng.normal(0, (2 / (9 * fan_in)) ** 0.5, (fan_in * 9, width)).astype(np.float32)]
        weights += [np.zeros(width, np.float32)]
    last = CHANNELS[-1] * 16
    weights += [rng.normal(0, last**-0.5, (last, CLASSES)).astype(np.float32), np.zeros(CLASSES, np.float32)]
    return weights


def gradients(weights: list[Array], x: Array, y: NDArray[np.int64]) -> list[Array]:
    """Gradients of the mean cross-entropy, in the order of the weights."""
    tape: list[tuple[Array, Array, tuple[int, ...]]] = []
    for layer in range(3):
        if layer == 1:
            n, c, h, w = x.shape
            blocks = x.reshape(n, c, h // 2, 2, w // 2, 2)
            pooled = blocks.max((3, 5))
            pool_mask = (blocks == pooled[:, :, :, None, :, None]).astype(np.float32)
            x = pooled
        columns = patches(x)
        out = np.maximum(columns @ weights[2 * layer] + weights[2 * layer + 1], 0)
        tape.append((columns, out, x.shape))
        x = np.ascontiguousarray(out.transpose(0, 3, 1, 2))
    flat = x.reshape(len(x), -1)
    logits = flat @ weights[6] + weights[7]
    probability = np.exp(logits - logits.max(1, keepdims=True))
    probability /= probability.sum(1, keepdims=True)
    delta = probability
    delta[np.arange(len(y)), y] -= 1
    delta /= len(y)
    found = [flat.T @ delta, delta.sum(0)]
    grad = (delta @ weights[6].T).reshape(x.shape)
    for layer in (2, 1, 0):
        columns, out, shape = tape[layer]
        inner = grad.transpose(0, 2, 3, 1) * (out > 0)
        found = [np.tensordot(columns, inner, ([0, 1, 2], [0, 1, 2])), inner.sum((0, 1, 2)), *found]
        grad = fold(inner @ weights[2 * layer].T, shape)
        if layer == 1:
            spread = pool_mask * grad[:, :, :, None, :, None]
            grad = spread.reshape(grad.shape[0], grad.shape[1], 8, 8)
    return found


def train(images: Array, labels: NDArray[np.int64], *, epochs: int, rng: np.random.Generator) -> list[Array]:
    """Adam with cosine decay on randomly shifted images."""
    weights = initial(rng)
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    step, steps = 0, epochs * (len(images) // 32)
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for start in range(0, len(order) - 31, 32):
            rows = order[start : start + 32]
            shifts = rng.integers(-1, 2, 2)
            batch = np.roll(images[rows], shifts, (2, 3))
            step += 1
            rate = 2e-3 * 0.5 * (1 + np.cos(np.pi * step / steps))
            for number, grad in enumerate(gradients(weights, batch, labels[rows])):
                first[number] += 0.1 * (grad - first[number])
                second[number] += 0.001 * (grad * grad - second[number])
                mean, spread = first[number] / (1 - 0.9**step), second[number] / (1 - 0.999**step)
                weights[number] -= np.float32(rate) * mean / (np.sqrt(spread) + np.float32(1e-8))
    return weights


def export(weights: list[Array], path: Path) -> None:
    """The network as ONNX opset 17: `input` float32 [N, 1, 8, 8] → `logits` [N, 10]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    tensors, nodes, current = [], [], "input"
    for layer, (fan_in, width) in enumerate(itertools.pairwise(CHANNELS), start=1):
        kernel = weights[2 * layer - 2].T.reshape(width, fan_in, 3, 3)
        tensors += [numpy_helper.from_array(np.ascontiguousarray(kernel), f"conv{layer}.weight")]
        tensors += [numpy_helper.from_array(weights[2 * layer - 1], f"conv{layer}.bias")]
        if layer == 2:
            nodes += [helper.make_node("MaxPool", [current], ["pooled"], "pool", kernel_shape=[2, 2], strides=[2, 2])]
            current = "pooled"
        names = [current, f"conv{layer}.weight", f"conv{layer}.bias"]
        nodes += [
            helper.make_node("Conv", names, [f"conv{layer}.out"], f"conv{layer}", pads=[1] * 4, kernel_shape=[3, 3])
        ]
        nodes += [helper.make_node("Relu", [f"conv{layer}.out"], [f"relu{layer}.out"], f"relu{layer}")]
        current = f"relu{layer}.out"
    tensors += [numpy_helper.from_array(np.ascontiguousarray(weights[6].T), "fc.weight")]
    tensors += [numpy_helper.from_array(weights[7], "fc.bias")]
    nodes += [helper.make_node("Flatten", [current], ["flat"], "flatten", axis=1)]
    nodes += [helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1)]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, 8, 8])
    taken = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
    graph = helper.make_graph(nodes, "digits", [given], [taken], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def main(folder: Path, epochs: int = 25) -> None:
    """Split, train, export, and say how good the float model is on the gate rows."""
    from sklearn.datasets import load_digits

    rng = np.random.default_rng(20261121)
    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    order = rng.permutation(len(images))
    parts = {"train": order[:697], "search": order[697:897], "gate": order[897:]}
    parts["calibration"] = parts["train"][:256]
    scaled = (images / np.float32(16) - np.float32(0.5)) / np.float32(0.25)
    weights = train(scaled[parts["train"]].astype(np.float32), labels[parts["train"]], epochs=epochs, rng=rng)
    folder.mkdir(parents=True, exist_ok=True)
    export(weights, folder / "digits.onnx")
    for role in ("calibration", "search", "gate"):
        np.savez_compressed(folder / f"{role}.npz", image=images[parts[role]], label=labels[parts[role]])
    report(folder, scaled[parts["gate"]].astype(np.float32), labels[parts["gate"]])


def report(folder: Path, images: Array, labels: NDArray[np.int64]) -> None:
    """Print the accuracy of the exported file, run by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "digits.onnx"), providers=["CPUExecutionProvider"])
    right = int((session.run(None, {"input": images})[0].argmax(1) == labels).sum())
    print(f"{folder / 'digits.onnx'}: {right} of {len(labels)} gate rows right ({right / len(labels):.4f})")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
