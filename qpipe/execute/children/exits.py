"""How a child ended, ready for a user."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qpipe.records.target import Limits

ExitKind = Literal["ok", "failed", "crashed", "timeout", "memory", "stopped"]
STOPPED = "stopped on request"
_LOG_TAIL_BYTES = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitError:
    """Why a child gave no result, ready for a user."""

    type: str
    message: str
    hint: str
    code: int
    lasts: bool = False
    """Whether the same request would meet it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a child ended.

    `failed`: the entry raised; a `QpipeError` keeps its message, hint and code, anything else is `TypeError: …` with
    code 1 and its traceback at the end of the log. `memory`: stopped at the limit, or a `MemoryError`. `crashed`: it
    ended without an answer, by a signal or by itself.
    """

    kind: ExitKind
    code: int | None
    """Exit status of the process; None where a signal ended it."""
    signal: int | None
    seconds: float
    cpu_seconds: float
    """User and system time of the child and of those of its children that it waited for."""
    peak_rss_bytes: int
    """Largest resident set of the child, or of its whole group where that was seen to be larger."""
    result: str | None
    """What the entry returned; None unless `ok`."""
    error: ExitError | None
    """None exactly for `ok`."""
    log_tail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the operating system says of a child that has ended."""

    status: int
    """Exit status, or the negative number of the signal that ended it."""
    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int
    """As far as its parent saw it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What `result.json` says."""

    result: str | None
    error: ExitError | None
    peak_rss_bytes: int


def read_exit(workdir: Path, ended: ExitKind, usage: Usage, limits: Limits) -> Exit:
    """The exit of a child that has ended by itself (`ok`, whatever it was) or was stopped.

    An answer appears at once and whole, as the child's last act: one that stands is taken also of a child that was
    killed after it, or whose seed could not say how it ended.
    """
    answer = _read_answer(workdir) if ended == "ok" and usage.status in {0, -signal.SIGKILL} else None
    log_tail = _tail(workdir / "log.txt")
    kind = ended
    error: ExitError | None
    if answer is not None:
        kind, error = _judge(answer)
    elif ended == "ok":
        kind, error = "crashed", _crash(usage.status)
    else:
        error = _stop_error(ended, usage, limits)
    return Exit(
        kind=kind,
        code=usage.status if usage.status >= 0 else None,
        signal=-usage.status if usage.status < 0 else None,
        seconds=usage.seconds,
        cpu_seconds=usage.cpu_seconds,
        peak_rss_bytes=max(usage.peak_rss_bytes, answer.peak_rss_bytes if answer else 0),
        result=answer.result if answer else None,
        error=error,
        log_tail=log_tail,
    )


def _read_answer(workdir: Path) -> _Answer | None:
    try:
        text = (workdir / "result.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    found = json.loads(text)
    error = ExitError(**found["error"]) if "error" in found else None
    return _Answer(result=found.get("result"), error=error, peak_rss_bytes=found["peak_rss_bytes"])


def _judge(answer: _Answer) -> tuple[ExitKind, ExitError | None]:
    if answer.error is None:
        return "ok", None
    return ("memory" if answer.error.type == "MemoryError" else "failed"), answer.error


def _crash(status: int) -> ExitError:
    if status == -signal.SIGKILL:
        message = "killed from outside by SIGKILL"
        hint = "the kernel's out-of-memory killer does that: see `dmesg`, or run fewer cells at once"
    elif status < 0:
        message = f"crashed with {signal.Signals(-status).name}"
        hint = "`qpipe report` shows the stack at the end of its log; a crash inside a vendor library is for its makers"
    else:
        message = f"exited with status {status} and without a result"
        hint = "`qpipe report` shows the end of its log; an entry returns, it does not exit"
    return ExitError(type="Crash", message=message, hint=hint, code=5)


def _stop_error(kind: ExitKind, usage: Usage, limits: Limits) -> ExitError:
    if kind == "timeout":
        message, hint = f"stopped at its limit of {limits.timeout_s:g} s", "raise `timeout_s` in the target's limits"
        return ExitError(type="Timeout", message=message, hint=hint, code=5)
    if kind == "memory":
        peak, most = usage.peak_rss_bytes / 2**20, limits.memory_bytes / 2**20
        message = f"stopped with {peak:,.0f} MiB resident, above its limit of {most:,.0f} MiB"
        hint = "raise `memory_bytes` in the target's limits, or use a smaller batch"
        return ExitError(type="Memory", message=message, hint=hint, code=5)
    return ExitError(type="Stopped", message=STOPPED, hint="run again: what is finished is kept", code=130)


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
        return file.read(_LOG_TAIL_BYTES).decode(errors="replace").strip()
