"""Paths as the file writes them: relative to it, with `${VARIABLE}` and `~`."""

from __future__ import annotations

import os
import re
from pathlib import Path

from qpipe.errors import ConfigError, nearest

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expand_variables(text: str) -> str:
    """Replace each `${NAME}` by the environment's value.

    Raises:
        ConfigError: the variable is not set, or a `$` that is none.
    """
    for name in _VARIABLE.findall(text):
        if not os.environ.get(name):
            raise ConfigError(
                f"environment variable {name} is not set, and {text!r} needs it{nearest(name, os.environ)}",
                hint=f"export {name}=…",
            )
    return _VARIABLE.sub(lambda match: os.environ[match[1]], text)


def resolve_path(text: str, folder: Path) -> Path:
    """The path that the file means, absolute.

    Raises:
        ConfigError: an environment variable that is not set, or a `~` of nobody.
    """
    try:
        return Path(os.path.normpath(folder / Path(expand_variables(text)).expanduser()))
    except RuntimeError as error:
        raise ConfigError(
            f"{text!r} begins with a home folder that nobody has", hint="write the whole path, or set HOME"
        ) from error
