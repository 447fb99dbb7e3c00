"""Progress on the terminal: one bar per running cell, on stderr, so that stdout stays for results."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from qpipe.execute.children.progress import ProgressEvent


class Screen:
    """A `Watch` that draws. Where stderr is no terminal it prints one line per finished job."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[label]}"),
            TextColumn("[dim]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._live,
        )

    def __enter__(self) -> Self:
        """Start to draw."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()

    def begin(self, label: str) -> None:
        """A bar appears."""
        with self._lock:
            self._tasks[label] = self._progress.add_task("starts", label=label, total=None)

    def update(self, label: str, event: ProgressEvent) -> None:
        """The bar follows its job."""
        with self._lock:
            if label in self._tasks:
                task = self._tasks[label]
                self._progress.update(task, description=event.step, completed=event.done, total=event.total)

    def end(self, label: str, outcome: str) -> None:
        """The bar goes; a line stays."""
        with self._lock:
            task = self._tasks.pop(label, None)
            if task is not None:
                self._progress.remove_task(task)
        mark = (
            "[green]done[/]" if outcome == "ok" else "[dim]cached[/]" if outcome == "cached" else f"[red]{outcome}[/]"
        )
        self._console.print(f"  {mark}  {label}", highlight=False, soft_wrap=True)

    def say(self, line: str) -> None:
        """A line above the bars."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class Steps:
    """A `Progress` for work in this process: one line per step on stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(stderr=True, quiet=quiet)

    def __enter__(self) -> Self:
        """Nothing to open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""

    def step(self, name: str, *, total: int | None = None) -> None:
        """A line says what begins."""
        self._console.print(
            f"  {name} ({total})" if total else f"  {name}", highlight=False, markup=False, soft_wrap=True
        )

    def advance(self, amount: int = 1) -> None:
        """Nothing to draw."""
