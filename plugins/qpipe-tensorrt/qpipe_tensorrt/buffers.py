"""Device memory of a session: one buffer per tensor, which only ever grows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpipe_tensorrt.cuda import Cuda


@dataclass(slots=True)
class Buffers:
    """Addresses by tensor name; one that grows gets another address."""

    cuda: Cuda
    _held: dict[str, tuple[int, int]] = field(default_factory=dict)

    def address(self, name: str, size_bytes: int) -> int:
        """Memory for a tensor of that size."""
        address, held = self._held.get(name, (0, -1))
        if held < size_bytes:
            if held >= 0:
                del self._held[name]
                self.cuda.free(address)
            address = self.cuda.allocate(size_bytes)
            self._held[name] = (address, size_bytes)
        return address

    @property
    def size_bytes(self) -> int:
        """All memory that is held."""
        return sum(size for _, size in self._held.values())

    def close(self) -> None:
        """Give everything back."""
        for address, _ in self._held.values():
            self.cuda.free(address)
        self._held.clear()
