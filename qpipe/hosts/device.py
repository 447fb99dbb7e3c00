"""What every device can do: take a file, start a program, give up its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from qpipe.errors import TargetError
from qpipe.records.engine import Kind, Ready, Unavailable
from qpipe.records.target import Host


class Device(Protocol):
    """One machine that is not this one, with a work folder of ours on it."""

    @property
    def kind(self) -> Kind:
        """How outputs come to be there: `measured` on hardware, `emulated`."""
        ...

    def check(self) -> Ready | Unavailable:
        """Whether it answers, within seconds."""
        ...

    def fingerprint(self) -> str:
        """What it is: model and machine.

        Raises:
            EngineError: it does not answer.
        """
        ...

    def push(self, source: Path, name: str) -> None:
        """Copy a file into the work folder.

        Raises:
            EngineError: unreachable, refused, or full.
        """
        ...

    def command(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """The local command that runs Python on the device with these arguments, in the work folder."""
        ...

    def explain(self, said: str) -> str:
        """One clear line for what the local program wrote before it failed."""
        ...

    def remove(self) -> None:
        """Remove the work folder; never raises."""
        ...


def open_device(host: Host, *, python: str = "python3") -> Device:
    """The device of a target's `host:`; nothing is contacted yet.

    Raises:
        TargetError: a local host, or no address where one is needed.
    """
    from qpipe.hosts.adb import AdbDevice
    from qpipe.hosts.emulator import EmulatedDevice
    from qpipe.hosts.ssh import SshDevice

    if host.kind == "local":
        raise TargetError("a local host is no device", hint="host: {kind: ssh, address: user@host}")
    if not host.address:
        raise TargetError(f"host {host.kind} has no address", hint="user@host, a serial number, or qemu-aarch64")
    if host.kind == "ssh":
        return SshDevice(host.address, python=python)
    if host.kind == "adb":
        return AdbDevice(host.address, python=python)
    return EmulatedDevice(host.address)


def ask_device(host: Host, *, python: str = "python3") -> tuple[Ready | Unavailable, str]:
    """Whether the device of a target's `host:` answers, and its fingerprint; empty where it does not.

    Raises:
        TargetError: as `open_device`.
        EngineError: it answered, and then went away.
    """
    device = open_device(host, python=python)
    state = device.check()
    return state, device.fingerprint() if isinstance(state, Ready) else ""
