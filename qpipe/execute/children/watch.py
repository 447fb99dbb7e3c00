"""Who is told how far the work is: the command line draws it, Python callers may ignore it."""

from __future__ import annotations

import logging
from typing import Protocol

from qpipe.execute.children.progress import ProgressEvent


class Watch(Protocol):
    """Receives progress of jobs by their labels. Called from several threads."""

    def begin(self, label: str) -> None:
        """A job starts."""
        ...

    def update(self, label: str, event: ProgressEvent) -> None:
        """How far a job's current step is."""
        ...

    def end(self, label: str, outcome: str) -> None:
        """A job is over: `ok`, `cached`, or what went wrong."""
        ...

    def say(self, line: str) -> None:
        """Something that the user should read now."""
        ...


class Silence:
    """Tells nobody."""

    def begin(self, label: str) -> None:
        """Nothing."""

    def update(self, label: str, event: ProgressEvent) -> None:
        """Nothing."""

    def end(self, label: str, outcome: str) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""


class Log:
    """Tells the logger `qpipe`, for a caller's own script: what a user should read as warnings, jobs as info."""

    def begin(self, label: str) -> None:
        """Nothing."""

    def update(self, label: str, event: ProgressEvent) -> None:
        """Nothing."""

    def end(self, label: str, outcome: str) -> None:
        """One line for each job."""
        logging.getLogger("qpipe").info("%s  %s", "done" if outcome == "ok" else outcome, label)

    def say(self, line: str) -> None:
        """On stderr, unless the caller says otherwise: `logging` shows warnings by itself."""
        logging.getLogger("qpipe").warning("%s", line)
