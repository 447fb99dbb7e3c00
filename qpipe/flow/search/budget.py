"""What a search may spend: minutes stop what is under way, as Ctrl-C would."""

from __future__ import annotations

import threading
import time


class Budget(threading.Event):
    """Set once the user wants to stop, or the minutes are over."""

    def __init__(self, stop: threading.Event, minutes: float | None) -> None:
        super().__init__()
        self._users = stop
        self._deadline = None if minutes is None else time.monotonic() + 60 * minutes

    @property
    def interrupted(self) -> bool:
        """Whether it was the user."""
        return self._users.is_set()

    @property
    def left_s(self) -> float | None:
        """Seconds until the minutes are over; None where there is no such end."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    @property
    def spent(self) -> bool:
        """Whether the minutes are over."""
        return self._deadline is not None and time.monotonic() > self._deadline

    def is_set(self) -> bool:
        """Whether to stop."""
        return super().is_set() or self.interrupted or self.spent

    @property
    def reason(self) -> str:
        """Why what is left was not tried."""
        return "interrupted" if self.interrupted else "the minutes of the budget were spent"
