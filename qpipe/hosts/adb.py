"""An Android phone through `adb`."""

from __future__ import annotations

import shlex
from pathlib import Path

from qpipe.errors import EngineError
from qpipe.hosts.program import Ran, in_words, last_line, run_program, work_folder_name
from qpipe.records.engine import Kind, Ready, Unavailable

ANY = "any"
_COMMAND_S = 30.0
_COPY_S = 300.0
_STALE_MIN = 24 * 60


class AdbDevice:
    """A phone by serial number, or `any` for the only one that is connected."""

    kind: Kind = "measured"

    def __init__(self, serial: str, *, python: str = "python3") -> None:
        self._wanted = serial
        self._serial = "" if serial == ANY else serial
        self._python = python
        self._folder = f"/data/local/tmp/{work_folder_name()}"
        self._made = False

    def check(self) -> Ready | Unavailable:
        """Whether `adb devices` lists it as ready."""
        ran = run_program(("adb", "devices"), timeout_s=_COMMAND_S)
        if not ran.ok:
            return Unavailable(reason=f"adb: {last_line(ran.said)}", hint="install adb (android platform tools)")
        listed = devices(ran.stdout)
        ready = [serial for serial, state in listed if state == "device"]
        if self._wanted == ANY and len(ready) > 1:
            return Unavailable(
                reason=f"adb: {len(ready)} devices are connected", hint="host: {kind: adb, address: SERIAL}"
            )
        if self._wanted == ANY and ready:
            self._serial = ready[0]
            return Ready()
        state = dict(listed).get(self._wanted, "")
        if state == "device":
            return Ready()
        if self._wanted == ANY:
            what = ", ".join(f"{serial} is {state}" for serial, state in listed) or "no device is connected"
        else:
            what = f"{self._wanted} is {state}" if state else f"{self._wanted} is not connected"
        return Unavailable(reason=f"adb: {what}", hint="adb devices; allow debugging on the phone")

    def fingerprint(self) -> str:
        """Model, system and build of the phone."""
        names = ("ro.product.model", "ro.board.platform", "ro.build.fingerprint")
        return " ".join(
            self._require(self._adb("shell", "; ".join(f"getprop {name}" for name in names))).stdout.split()
        )

    def push(self, source: Path, name: str) -> None:
        """Copy into `/data/local/tmp`; the folder is made at the first file."""
        if not self._made:
            stale = (
                f"find /data/local/tmp -maxdepth 1 -name 'qpipe-????????????' -mmin +{_STALE_MIN} -exec rm -rf {{}} +"
            )
            self._require(self._adb("shell", f"{stale} 2>/dev/null; mkdir {shlex.quote(self._folder)}"))
            self._made = True
        self._require(self._adb("push", str(source), f"{self._folder}/{name}", timeout_s=_COPY_S))

    def command(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """`adb shell` without a terminal, which leaves bytes as they are."""
        inner = " ".join(shlex.quote(part) for part in (self._python, *arguments))
        return (*self._base(), "shell", "-T", f"cd {shlex.quote(self._folder)} && exec {inner}")

    def explain(self, said: str) -> str:
        """Adb's own words, sorted."""
        known = (
            ("No space left on device", "the device is full"),
            ("not found", "the device went away, or a program is missing there"),
            ("device offline", "the device is offline"),
            ("unauthorized", "debugging is not allowed on the phone"),
            ("No module named", "the runtime is not installed there"),
        )
        return f"adb {self._serial or self._wanted}: {in_words(said, known)}"

    def remove(self) -> None:
        """Remove the work folder if one was made."""
        if self._made:
            self._adb("shell", f"rm -rf {shlex.quote(self._folder)}")
            self._made = False

    def _base(self) -> tuple[str, ...]:
        if not self._serial:
            state = self.check()
            if isinstance(state, Unavailable):
                raise EngineError(state.reason, hint=state.hint)
        return ("adb", "-s", self._serial)

    def _adb(self, *arguments: str, timeout_s: float = _COMMAND_S) -> Ran:
        return run_program((*self._base(), *arguments), timeout_s=timeout_s)

    def _require(self, ran: Ran) -> Ran:
        if ran.code is None:
            raise EngineError(f"adb {self._serial}: no answer in time")
        if not ran.ok:
            raise EngineError(self.explain(ran.said), hint="adb devices")
        return ran


def devices(text: str) -> tuple[tuple[str, str], ...]:
    """(serial, state) of each line of `adb devices`."""
    lines = [line.split() for line in text.splitlines()[1:]]
    return tuple((line[0], line[1]) for line in lines if len(line) >= 2 and not line[0].startswith("*"))
