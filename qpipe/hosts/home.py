"""Where qpipe keeps what it made for this machine: tool environments, emulator roots, conversions."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """`QPIPE_HOME`, or `~/.cache/qpipe`."""
    return Path(os.environ.get("QPIPE_HOME") or Path.home() / ".cache" / "qpipe").expanduser()
