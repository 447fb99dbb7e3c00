"""A small MobileNet-like network: its layout, its training in PyTorch, and its ONNX graph built from the weights.

Run as a script it trains: `python docs/benchmarks/depthwise_net.py WEIGHTS.npz [EPOCHS]` (needs torch and numpy). The
graph is what exporters of padded MobileNets write: Pad before each 3×3 Conv, BatchNormalization and Clip(0, 6) behind.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Weights = Mapping[str, Array]

STEM, LAST, CLASSES = 16, 256, 10
BLOCKS = ((1, 16, 1, 2), (4, 24, 2, 1), (4, 32, 3, 2), (4, 64, 3, 2), (4, 96, 2, 1))
"""(expansion, width, count, first stride) of the inverted residuals. Source: Sandler et al. 2018, arXiv:1801.04381."""
EPOCHS, BATCH, RATE, DECAY = 24, 64, 0.1, 4e-4
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One Conv + BatchNorm (+ Clip); `begins` and `ends` say where an inverted residual with a shortcut stands."""

    name: str
    width: int
    out: int
    kernel: int
    stride: int = 1
    group: int = 1
    clip: bool = True
    begins: bool = False
    ends: bool = False


def units() -> Iterator[Unit]:
    """All convolutions in order."""
    yield Unit(name="stem", width=3, out=STEM, kernel=3)
    width = STEM
    for place, (factor, out, count, first) in enumerate(BLOCKS):
        for number in range(count):
            stride, wide, name = (first if number == 0 else 1), width * factor, f"block{place}_{number}"
            residual = stride == 1 and width == out
            if factor > 1:
                yield Unit(name=f"{name}/expand", width=width, out=wide, kernel=1, begins=residual)
            depthwise_begins = residual and factor == 1
            yield Unit(
                name=f"{name}/depthwise",
                width=wide,
                out=wide,
                kernel=3,
                stride=stride,
                group=wide,
                begins=depthwise_begins,
            )
            yield Unit(name=f"{name}/project", width=wide, out=out, kernel=1, clip=False, ends=residual)
            width = out
    yield Unit(name="last", width=width, out=LAST, kernel=1)


def preprocessed(images: Array) -> NDArray[np.float32]:
    """CIFAR rows, uint8 [N, 3, 32, 32], as the network takes them."""
    return ((images.astype(np.float32) / 255 - MEAN) / STD).astype(np.float32)


def train(data: Path, target: Path, epochs: int = EPOCHS, seed: int = 0) -> None:
    """Train on the calibration and search rows (never on gate rows) and write the weights as .npz."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    parts = [np.load(data / f"cifar10-{name}.npz") for name in ("calibration", "search")]
    images = torch.from_numpy(np.concatenate([preprocessed(part["image"]) for part in parts]))
    labels = torch.from_numpy(np.concatenate([part["label"] for part in parts]).astype(np.int64))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs, self.norms = nn.ModuleDict(), nn.ModuleDict()
            for unit in units():
                sizes = {"stride": unit.stride, "padding": unit.kernel // 2, "groups": unit.group, "bias": False}
                self.convs[unit.name] = nn.Conv2d(unit.width, unit.out, unit.kernel, **sizes)
                self.norms[unit.name] = nn.BatchNorm2d(unit.out)
            self.head = nn.Linear(LAST, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kept = x
            for unit in units():
                kept = x if unit.begins else kept
                x = self.norms[unit.name](self.convs[unit.name](x))
                x = nn.functional.relu6(x) if unit.clip else x
                x = x + kept if unit.ends else x
            return self.head(x.mean(dim=(2, 3)))

    net = Net().to(memory_format=torch.channels_last)
    steps = epochs * -(-len(images) // BATCH)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9, weight_decay=DECAY, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=steps)
    for epoch in range(epochs):
        right, order = 0, torch.randperm(len(images))
        for part in order.split(BATCH):
            rows = augmented(images[part]).contiguous(memory_format=torch.channels_last)
            logits = net(rows)
            loss = nn.functional.cross_entropy(logits, labels[part], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            right += int((logits.argmax(dim=1) == labels[part]).sum())
        print(f"epoch {epoch}: {100 * right / len(images):.1f} % of the training rows", file=sys.stderr, flush=True)
    arrays = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    np.savez(target, **arrays)


def augmented(rows):  # noqa: ANN001, ANN201 - a torch tensor, which this module cannot name without torch
    """Rows shifted by up to four pixels and mirrored, one draw for each row."""
    import torch

    padded = torch.nn.functional.pad(rows, (4, 4, 4, 4), mode="reflect")
    places = torch.randint(0, 9, (len(rows), 2)).tolist()
    cut = [row[:, top : top + 32, left : left + 32] for row, (top, left) in zip(padded, places, strict=True)]
    flips = torch.rand(len(rows)) < 0.5
    return torch.stack([row.flip(-1) if flip else row for row, flip in zip(cut, flips, strict=True)])


def build(weights: Weights, target: Path) -> None:
    """Write the trained network as ONNX: Pad, Conv, BatchNormalization and Clip stand as nodes of their own."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[onnx.NodeProto] = []
    constants = [
        numpy_helper.from_array(np.asarray(array), name)
        for name, array in (("lo", np.float32(0)), ("hi", np.float32(6)), ("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    ]

    def add(op: str, inputs: list[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [f"{name}/{op}_out"], name=f"{name}/{op}", **attributes))
        return str(nodes[-1].output[0])

    def constant(name: str) -> str:
        constants.append(numpy_helper.from_array(np.asarray(weights[name], np.float32), name))
        return name

    x = kept = "input"
    for unit in units():
        kept = x if unit.begins else kept
        if unit.kernel == 3:
            x = add("Pad", [x, "pads"], unit.name)
        sizes = {"kernel_shape": [unit.kernel] * 2, "strides": [unit.stride] * 2, "group": unit.group}
        x = add("Conv", [x, constant(f"convs.{unit.name}.weight")], unit.name, **sizes)
        norm = [constant(f"norms.{unit.name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        x = add("BatchNormalization", [x, *norm], unit.name, epsilon=1e-5)
        x = add("Clip", [x, "lo", "hi"], unit.name) if unit.clip else x
        x = add("Add", [x, kept], unit.name) if unit.ends else x
    x = add("Flatten", [add("GlobalAveragePool", [x], "pool")], "flat")
    nodes.append(
        helper.make_node("Gemm", [x, constant("head.weight"), constant("head.bias")], ["logits"], name="head", transB=1)
    )
    borders = [
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
    ]
    graph = helper.make_graph(nodes, "depthwise", *borders, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, target)


if __name__ == "__main__":
    train(Path(os.environ["QPIPE_BENCH_DATA"]), Path(sys.argv[1]), int((*sys.argv, EPOCHS)[2]))
