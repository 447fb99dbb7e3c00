"""Where qpipe keeps what it made for this machine: tool environments, emulator roots, conversions, copies of stores."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """`QPIPE_HOME`, or `qpipe` in the user's cache folder (`XDG_CACHE_HOME`, or `~/.cache`)."""
    if own := os.environ.get("QPIPE_HOME"):
        return Path(own).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME", "").strip()
    return (Path(caches) if caches else Path.home() / ".cache") / "qpipe"
