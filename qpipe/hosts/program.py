"""Short programs (ssh, scp, adb, apt-get) with a deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a program ended; `code` is None where the deadline passed."""

    code: int | None
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether it ended with 0."""
        return self.code == 0

    @property
    def said(self) -> str:
        """Everything it wrote."""
        return f"{self.stdout}\n{self.stderr}".strip()


def run_program(command: tuple[str, ...], *, timeout_s: float) -> Ran:
    """Run to the end, or stop the whole process group at the deadline. A program that is missing ends with 127."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as problem:
        return Ran(code=127, stdout="", stderr=f"{command[0]}: {problem.strerror}")
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        stop_group(process)
        stdout, stderr = process.communicate()
        return Ran(code=None, stdout=stdout, stderr=stderr)
    return Ran(code=process.returncode, stdout=stdout, stderr=stderr)


def stop_group(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Kill a process that leads its own group, and everything in it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"


def in_words(said: str, meanings: tuple[tuple[str, str], ...]) -> str:
    """The last line, behind what the first known text in it means."""
    last = last_line(said)
    return next((f"{meaning} ({last})" for text, meaning in meanings if text in said), last)


def work_folder_name() -> str:
    """A folder name that nobody else uses; the runner removes only folders that begin like this."""
    return f"qpipe-{uuid.uuid4().hex[:12]}"
