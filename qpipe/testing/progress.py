"""Progress for whoever has nobody to tell: tests, benchmarks, scripts."""

from __future__ import annotations


class Silent:
    """Progress that nobody looks at."""

    def step(self, name: str, *, total: int | None = None) -> None:
        """Nothing."""

    def advance(self, amount: int = 1) -> None:
        """Nothing."""
