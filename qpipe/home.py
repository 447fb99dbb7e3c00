"""Where qpipe keeps what it made for this machine: tool environments, emulator roots, conversions, copies of stores."""

from __future__ import annotations

import os
from pathlib import Path

from qpipe.errors import ConfigError


def home() -> Path:
    """`QPIPE_HOME`, or `qpipe` in the user's cache folder (`XDG_CACHE_HOME`, or `~/.cache`).

    Raises:
        ConfigError: this user has no home folder.
    """
    if own := os.environ.get("QPIPE_HOME"):
        return Path(own).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME", "").strip()
    return (Path(caches) if caches else user_home() / ".cache") / "qpipe"


def user_home() -> Path:
    """The user's own folder, which MLflow cannot be imported without.

    Raises:
        ConfigError: there is none: a container's uid without a name, and no HOME.
    """
    try:
        return Path.home()
    except RuntimeError as error:
        raise ConfigError(
            f"the user {os.getuid()} has no home folder: HOME is not set, and the uid has no name",
            hint="export HOME=FOLDER, one that can be written",
        ) from error
