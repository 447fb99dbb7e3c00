"""Progress on the terminal: one bar per running cell, on stderr, so that stdout stays for results."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from qpipe.execute.children.progress import ProgressEvent

BAR = 24
BESIDE = 46
"""Columns that step, count and time want beside the label; where a label has less than them, there is no bar."""


class _Count(MofNCompleteColumn):
    """`3/8`; nothing where nobody knows of how many."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


class Screen:
    """A `Watch` that draws. Where stderr is no terminal it prints one line per finished job."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        room = self._console.width - BESIDE
        bar = [BarColumn(bar_width=BAR)] if room - BAR >= BESIDE else []
        room -= BAR + 1 if bar else 0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[label]}", markup=False, table_column=Column(max_width=room, no_wrap=True)),
            TextColumn("{task.description}", markup=False, style="dim"),
            *bar,
            _Count(),
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
        self._console.print(f"  {mark}  {escape(label)}", highlight=False, soft_wrap=True)

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
