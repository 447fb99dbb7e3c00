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


def load_cache(file: str, config: IBuilderConfig) -> str:
    """Give the builder what earlier builds measured; what is wrong with that, where it begins with nothing instead.

    The builder itself refuses a cache of another device or version, and one that is broken.
    """
    stored = Path(file).read_bytes() if Path(file).is_file() else b""
    cache = config.create_timing_cache(stored)
    if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
        return ""
    empty = config.create_timing_cache(b"")
    if empty is not None:
        config.set_timing_cache(empty, ignore_mismatch=False)
    return "TensorRT refuses the timing cache that was kept: tactics are measured anew" if stored else ""


def save_cache(file: str, config: IBuilderConfig) -> None:
    """Write it whole or not at all: the builder may be killed."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    with NamedTemporaryFile(dir=Path(file).parent, delete=False) as temporary:
        temporary.write(memoryview(cache.serialize()))  # type: ignore[arg-type]  # the vendor's memory is a buffer
    Path(temporary.name).replace(file)


def cache_key(version: str, gpu: Gpu) -> str:
    """Names the cache of one GPU model, driver and TensorRT version."""
    made_of = f"{version}\n{gpu.name}\n{gpu.capability}\n{gpu.driver}"
    return f"tensorrt-timing-{sha256(made_of.encode()).hexdigest()}"
