"""Calls into the code of plugins: what it prints is no result, and what hangs is left alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from threading import Thread


@contextmanager
def banners_aside() -> Iterator[None]:
    """`prints_aside`, and what C code writes too; for what happens before other threads print results."""
    with prints_aside():
        try:
            kept = os.dup(1)
            os.dup2(2, 1)
        except OSError:  # one of them is closed
            yield
            return
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


@contextmanager
def prints_aside() -> Iterator[None]:
    """What is printed inside goes to stderr: stdout holds results, with `--json` one document."""
    with redirect_stdout(sys.stderr):
        yield


def one_line(error: BaseException) -> str:
    """Type and message of an error."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def call_within(function: Callable[[], object], *, seconds: float) -> str:
    """Why a call is no success: what it raised, or that it hangs (it is left alone then); empty where it returned."""
    ended: list[str] = []

    def call() -> None:
        try:
            function()
            ended.append("")
        except BaseException as error:  # noqa: BLE001  (anybody's code, in a thread that ends with it)
            ended.append(f"raised {one_line(error)}")

    thread = Thread(target=call, daemon=True)
    with prints_aside():
        thread.start()
        thread.join(seconds)
    return ended[0] if ended else f"was still busy after {seconds:g} s and is not called again"
