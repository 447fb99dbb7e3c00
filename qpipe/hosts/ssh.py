"""A Linux board or another machine through the system's ssh and scp."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from qpipe.errors import EngineError
from qpipe.hosts.program import Ran, in_words, run_program, work_folder_name
from qpipe.records.engine import Kind, Ready, Unavailable

_CONNECT_S = 8
_COMMAND_S = 30.0
_COPY_S = 300.0
_STALE_MIN = 24 * 60


class SshDevice:
    """`QPIPE_SSH_CONFIG` names a configuration file (`ssh -F`) where the user's own is not the right one."""

    kind: Kind = "measured"

    def __init__(self, address: str, *, python: str = "python3") -> None:
        self.address = address
        self._python = python
        self._folder = f"/tmp/{work_folder_name()}"
        self._made = False

    def check(self) -> Ready | Unavailable:
        """One connection."""
        ran = self._ssh("true")
        if ran.ok:
            return Ready()
        return Unavailable(reason=self.explain(ran.said or "no answer in time"), hint=f"try: ssh {self.address} true")

    def fingerprint(self) -> str:
        """Machine, and the board's or CPU's name."""
        names = "cat /proc/device-tree/model 2>/dev/null || grep -m1 'model name' /proc/cpuinfo | cut -d: -f2"
        ran = self._require(self._ssh(f"uname -m; {names}"))
        return " ".join(ran.stdout.replace("\0", "").split())

    def push(self, source: Path, name: str) -> None:
        """Copy with scp; the folder is made at the first file, and folders that were left behind are removed."""
        if not self._made:
            stale = f"find /tmp -maxdepth 1 -name 'qpipe-????????????' -mmin +{_STALE_MIN} -exec rm -rf {{}} +"
            self._require(self._ssh(f"{stale} 2>/dev/null; mkdir -m 700 {shlex.quote(self._folder)}"))
            self._made = True
        command = ("scp", *self._options(), "-q", str(source), f"{self.address}:{self._folder}/{name}")
        self._require(run_program(command, timeout_s=_COPY_S))

    def command(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """`ssh ADDRESS python3 …` without a terminal: its end of input is ours."""
        inner = " ".join(shlex.quote(part) for part in (self._python, *arguments))
        return ("ssh", *self._options(), "-T", self.address, f"cd {shlex.quote(self._folder)} && exec {inner}")

    def explain(self, said: str) -> str:
        """Ssh's own words, sorted."""
        known = (
            ("Permission denied", "the key was refused"),
            ("Host key verification failed", "the host key is unknown or has changed"),
            ("No space left on device", "the device is full"),
            ("write remote", "the device is full, or the folder is not writable"),
            ("Could not resolve", "no such host"),
            ("Connection refused", "nothing listens there"),
            ("timed out", "no answer in time"),
            ("No module named", "the runtime is not installed there"),
        )
        return f"ssh {self.address}: {in_words(said, known)}"

    def remove(self) -> None:
        """Remove the work folder if one was made."""
        if self._made:
            self._ssh(f"rm -rf {shlex.quote(self._folder)}")
            self._made = False

    def _options(self) -> tuple[str, ...]:
        config = os.environ.get("QPIPE_SSH_CONFIG")
        quiet = ("-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_S}")
        alive = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")
        return (*(("-F", config) if config else ()), *quiet, *alive)

    def _ssh(self, command: str) -> Ran:
        return run_program(("ssh", *self._options(), "-T", self.address, command), timeout_s=_COMMAND_S)

    def _require(self, ran: Ran) -> Ran:
        if ran.code is None:
            raise EngineError(f"ssh {self.address}: no answer in time")
        if not ran.ok:
            raise EngineError(self.explain(ran.said), hint=f"try: ssh {self.address} true")
        return ran
