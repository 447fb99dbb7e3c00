"""The layouts in which one quantized image stands in a graph, each made once and only when somebody asks."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qpipe.quant.edits import Names, add_initializer
from qpipe.quant.graph import name_of

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
_ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid")
"""What onnxruntime fuses into a float convolution."""


class Images:
    """Quantized images [N, C, H, W] of a graph as [N, H, W/f, f·C], by the number f of pixels in a pack."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph, self.names = graph, Names(graph)
        self._forms: dict[ir.Value, dict[int, ir.Value]] = {}

    def has(self, image: ir.Value) -> bool:
        """Whether it stands in another layout than its own already."""
        return image in self._forms

    def packs(self, image: ir.Value) -> int:
        """The pack that it was made in, or 1."""
        return next(iter(self._forms.get(image, {1: image})))

    def get(self, image: ir.Value, packs: int) -> ir.Value:
        """The image in packs of `packs` pixels."""
        forms = self._forms.setdefault(image, {})
        if not forms:
            forms[1] = self._before(image) or self._insert("Transpose", image, name_of(image), "nhwc", perm=TO_NHWC)
        if packs not in forms:
            source = next(iter(forms.values()))
            forms[packs] = self._insert(
                "Reshape", source, name_of(image), f"packs_of_{packs}", self._shape(image, packs)
            )
        return forms[packs]

    def put(self, image: ir.Value, packs: int, form: ir.Value) -> None:
        """Say that `form` holds this image in packs of `packs` pixels; every other reader sees it as NCHW again."""
        form.name = self.names.fresh(f"{name_of(image)}_nhwc")
        self._forms[image] = {packs: form}
        back = self._insert("Transpose", self.get(image, 1), name_of(image), "nchw", perm=TO_NCHW)
        back.shape, back.type = image.shape, image.type
        image.replace_all_uses_with(back)
        self._forms[back] = self._forms.pop(image)

    def _before(self, image: ir.Value) -> ir.Value | None:
        """Quantized from NHWC pixels where a float convolution makes them: its kernel writes either order as fast."""
        quantizer = image.producer()
        pixels = quantizer.inputs[0] if quantizer is not None and quantizer.op_type == "QuantizeLinear" else None
        if quantizer is None or pixels is None or not _from_convolution(pixels):
            return None
        turned = self._insert("Transpose", pixels, name_of(pixels), "nhwc", perm=TO_NHWC)
        rest = [value for value in quantizer.inputs[1:] if value is not None]
        return self._insert("QuantizeLinear", turned, name_of(image), "nhwc", *rest)

    def constant(self, like: ir.Value, array: NDArray[np.generic]) -> ir.Value:
        """A new initializer of the dtype of `like`, packed from it."""
        return add_initializer(self.graph, self.names.fresh(f"{name_of(like)}_packed"), array, like.dtype)

    def _shape(self, image: ir.Value, packs: int) -> ir.Value:
        """[N, H, W/f, f·C]; a Reshape is enough, since packs hold the same bytes in the same order."""
        assert image.shape is not None
        channels, width = image.shape[1], image.shape[3]
        assert isinstance(channels, int)
        assert isinstance(width, int)
        name = self.names.fresh(f"{name_of(image)}/packs_of_{packs}/shape")
        return add_initializer(self.graph, name, np.array([0, 0, width // packs, channels * packs], np.int64))

    def _insert(
        self, op: str, source: ir.Value, image: str, form: str, *more: ir.Value, perm: tuple[int, ...] = ()
    ) -> ir.Value:
        node = ir.node(op, [source, *more], {"perm": perm} if perm else {}, name=f"{image}/{form}")
        node.outputs[0].name = self.names.fresh(f"{image}_{form}")
        producer = source.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(producer, node)
        return node.outputs[0]


def _from_convolution(pixels: ir.Value) -> bool:
    producer = pixels.producer()
    if producer is not None and producer.op_type in _ACTIVATIONS and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    return producer is not None and producer.op_type == "Conv"
