"""Measured tactics of `tensorrt`, kept between builds per device, driver and version: qpipe's store holds the file.

Not run here: TensorRT for RTX has no timing cache, and `tensorrt` needs a GPU to build.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpipe_tensorrt.api import IBuilderConfig
    from qpipe_tensorrt.driver import Gpu

FILE = "timing.cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingCache:
    """One file; a missing file is an empty cache."""

    file: Path

    def load(self, config: IBuilderConfig) -> None:
        """Give the builder what earlier builds measured; it refuses a cache of another device by itself."""
        stored = self.file.read_bytes() if self.file.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(stored), ignore_mismatch=False)

    def save(self, config: IBuilderConfig) -> None:
        """Write it whole or not at all: the builder may be killed."""
        with NamedTemporaryFile(dir=self.file.parent, delete=False) as temporary:
            temporary.write(memoryview(config.get_timing_cache().serialize()))  # type: ignore[arg-type]  # a buffer
        Path(temporary.name).replace(self.file)


def cache_key(version: str, gpu: Gpu) -> str:
    """Names the cache of one GPU model, driver and TensorRT version."""
    made_of = f"{version}\n{gpu.name}\n{gpu.capability}\n{gpu.driver}"
    return f"tensorrt-timing-{sha256(made_of.encode()).hexdigest()}"
