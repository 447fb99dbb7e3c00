"""Wait for MLflow no longer than the user does: a server that takes a request and says nothing holds it for minutes."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from qpipe.flow.stopping import heed

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

GRACE_S = 5.0
"""How long a request that is under way may take after Ctrl-C: most end well."""
POLL_S = 0.1


def answered(work: Callable[[], T], stop: threading.Event, *, grace_s: float | None = None) -> T:
    """What `work` returns or raises; once `stop` is set, it is left behind if it does not end within `grace_s` (5 s).

    Raises:
        Interrupted: it was left behind.
    """
    answer: Future[T] = Future()
    thread = threading.Thread(target=_fill, args=(answer, work), name="qpipe-asking", daemon=True)
    thread.start()
    while thread.is_alive() and not stop.is_set():
        thread.join(POLL_S)
    thread.join(GRACE_S if grace_s is None else grace_s)
    if thread.is_alive():
        heed(stop)
    return answer.result()


def _fill(answer: Future[T], work: Callable[[], T]) -> None:
    try:
        answer.set_result(work())
    except BaseException as error:  # noqa: BLE001  (raised again where it is waited for)
        answer.set_exception(error)
