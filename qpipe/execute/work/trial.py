"""The first look at a model, in a child: does the reference runner load it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.measure.reference import open_reference

if TYPE_CHECKING:
    from qpipe.plugins.backend import Progress


def try_model(request: str, _progress: Progress) -> str:
    """Entry of the child: the path of a model → nothing, if it loads."""
    open_reference(Path(request)).close()
    return ""
