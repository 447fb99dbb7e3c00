"""The same `.ort` file with its unordered lists in order: onnxruntime writes them as its hash tables happen to lie.

Source: onnxruntime 1.31 `core/flatbuffers/schema/ort.fbs`; FlatBuffers internals, "Encoding".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flatbuffers import Builder

_ROOT = "InferenceSession"
_IDENTIFIER = b"ORTM"
_RAW_ALIGNMENT = 16
_TYPE_INFO = {1: "TensorTypeAndShape", 2: "SequenceType", 3: "MapType"}
# A field is a scalar (its `struct` letter), `str`, `[n@a]` (n bytes per item, aligned to a), a table, a list of these
# or `union`; fields stand in the order of their slots. `~` marks lists without an order of their own, which are sorted
# by the first field of their items; `-` is a slot that is not known here.
_TABLES = {
    "InferenceSession": "str Model - KernelTypeStrResolver",
    "Model": "q [~OperatorSetId] str str str q str Graph str [~StringStringEntry]",
    "Graph": "[~Tensor] [~ValueInfo] [Node] I [NodeEdge] [str] [str] [SparseTensor] -",
    "Tensor": "str str [8@8] i [1@1] [str] q",
    "SparseTensor": "Tensor Tensor [8@8]",
    "Node": "str str str i I str i str [str] [str] [~Attribute] [4@4] [str]",
    "NodeEdge": "I [12@4] [12@4]",
    "ValueInfo": "str str TypeInfo",
    "TypeInfo": "str B union",
    "TensorTypeAndShape": "i Shape",
    "SequenceType": "TypeInfo",
    "MapType": "i TypeInfo",
    "Shape": "[Dimension]",
    "Dimension": "DimensionValue str",
    "DimensionValue": "b q str",
    "OperatorSetId": "str q",
    "Attribute": "str str i f q str Tensor Graph [4@4] [8@8] [str] [Tensor] [Graph]",
    "KernelTypeStrResolver": "[~OpIdKernelTypeStrArgsEntry]",
    "OpIdKernelTypeStrArgsEntry": "str [~KernelTypeStrArgsEntry]",
    "KernelTypeStrArgsEntry": "str [ArgTypeAndIndex]",
    "ArgTypeAndIndex": "b I",
    "StringStringEntry": "str str",
}


class UnknownFieldError(ValueError):
    """A newer onnxruntime wrote a field that this module does not know: the file must stay as it is."""


def in_order(data: bytes) -> bytes:
    """The same model, byte for byte the same for the same model.

    Raises:
        UnknownFieldError: the file has a field that would be lost.
    """
    import flatbuffers

    builder = flatbuffers.Builder(len(data) + 4096)
    root = _Writer(data, builder).table(_ROOT, _u32(data, 0))
    builder.Finish(root, file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


class _Writer:
    """Copies tables from one flatbuffer into another, children first."""

    def __init__(self, data: bytes, builder: Builder) -> None:
        self._data = data
        self._builder = builder

    def table(self, name: str, at: int) -> int:
        slots = self._slots(name, at)
        kinds = _TABLES[name].split()
        made = {slot: self._child(name, kinds[slot], slot, slots) for slot in slots if len(kinds[slot]) > 1}
        self._builder.StartObject(len(kinds))
        for slot, position in slots.items():
            if slot in made:
                self._builder.PrependUOffsetTRelativeSlot(slot, made[slot], 0)
            else:
                self._scalar(kinds[slot], slot, position)
        return int(self._builder.EndObject())

    def _slots(self, name: str, at: int) -> dict[int, int]:
        """Where each field that is there lies."""
        vtable = at - struct.unpack_from("<i", self._data, at)[0]
        count = (struct.unpack_from("<H", self._data, vtable)[0] - 4) // 2
        offsets = struct.unpack_from(f"<{count}H", self._data, vtable + 4)
        kinds = _TABLES[name].split()
        found = {slot: at + offset for slot, offset in enumerate(offsets) if offset}
        if odd := [slot for slot in found if slot >= len(kinds) or kinds[slot] == "-"]:
            raise UnknownFieldError(f"{name}, field {odd[0]}")
        return found

    def _scalar(self, kind: str, slot: int, position: int) -> None:
        value = struct.unpack_from(f"<{kind}", self._data, position)[0]
        prepend = {
            "b": self._builder.PrependInt8Slot,
            "B": self._builder.PrependUint8Slot,
            "i": self._builder.PrependInt32Slot,
            "I": self._builder.PrependUint32Slot,
            "q": self._builder.PrependInt64Slot,
            "f": self._builder.PrependFloat32Slot,
        }[kind]
        prepend(slot, value, None)  # None: no value is the default one, what is there is written

    def _child(self, name: str, kind: str, slot: int, slots: dict[int, int]) -> int:
        at = slots[slot] + _u32(self._data, slots[slot])
        if kind == "str":
            return int(self._builder.CreateSharedString(self._text(at)))
        if kind == "union":
            member = self._data[slots[slot - 1]]
            if member not in _TYPE_INFO:
                raise UnknownFieldError(f"{name}, type {member}")
            return self.table(_TYPE_INFO[member], at)
        if not kind.startswith("["):
            return self.table(kind, at)
        item = kind[1:-1]
        if "@" in item:
            return self._plain(at, *map(int, item.split("@")))
        return self._list(item.removeprefix("~"), at, ordered=not item.startswith("~"))

    def _plain(self, at: int, size: int, alignment: int) -> int:
        count = _u32(self._data, at)
        content = self._data[at + 4 : at + 4 + count * size]
        self._builder.StartVector(size, count, _RAW_ALIGNMENT if size == 1 else alignment)
        self._builder.head -= len(content)
        self._builder.Bytes[self._builder.head : self._builder.head + len(content)] = content
        return int(self._builder.EndVector())

    def _list(self, item: str, at: int, *, ordered: bool) -> int:
        places = [at + 4 + 4 * i for i in range(_u32(self._data, at))]
        targets = [place + _u32(self._data, place) for place in places]
        if not ordered:
            targets.sort(key=lambda target: self._name(item, target))
        if item == "str":
            made = [int(self._builder.CreateSharedString(self._text(target))) for target in targets]
        else:
            made = [self.table(item, target) for target in targets]
        self._builder.StartVector(4, len(made), 4)
        for offset in reversed(made):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def _name(self, item: str, at: int) -> bytes:
        place = self._slots(item, at).get(0)
        return b"" if place is None else self._text(place + _u32(self._data, place))

    def _text(self, at: int) -> bytes:
        return self._data[at + 4 : at + 4 + _u32(self._data, at)]


def _u32(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])
