"""Where a run looks whether somebody wants it to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpipe.errors import Interrupted

if TYPE_CHECKING:
    import threading


GO_ON = "run the same command again: it goes on from what is finished"


def heed(stop: threading.Event) -> None:
    """Go no further once `stop` is set.

    Raises:
        Interrupted: it is.
    """
    if stop.is_set():
        raise Interrupted("interrupted", hint=GO_ON)
