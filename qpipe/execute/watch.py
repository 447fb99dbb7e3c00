"""Who is told how far the work is: the command line draws it, Python callers may ignore it."""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """Receives progress of jobs by their labels. Called from several threads."""

    def begin(self, label: str) -> None:
        """A job starts."""
        ...

    def step(self, label: str, name: str, total: int | None) -> None:
        """A job enters a step."""
        ...

    def advance(self, label: str, amount: int) -> None:
        """A job's current step goes on."""
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

    def step(self, label: str, name: str, total: int | None) -> None:
        """Nothing."""

    def advance(self, label: str, amount: int) -> None:
        """Nothing."""

    def end(self, label: str, outcome: str) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""
