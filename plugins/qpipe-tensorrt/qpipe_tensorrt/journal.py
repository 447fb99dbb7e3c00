"""The vendor's log, kept as lines: errors for messages, the layer dump for placement.

The vendor's logger is global to its process, so one journal serves one build at a time. An `IErrorRecorder` is never
used: with the Python bindings it segfaults when the builder is torn down.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol, cast

from qpipe_tensorrt.vendor import numbered

if TYPE_CHECKING:
    from qpipe_tensorrt.api import Member, Vendor

_DUMP_START = "Layers:\n"
_LOUD = ("INTERNAL_ERROR", "ERROR", "WARNING")
_CALL = re.compile(r"^I\w+::\w+: ")
_LOCATION = re.compile(r" In [\w:]+ at /_src/\S+?(?=\)|$)|\[\w+\.(?:cpp|h)[^\]]*\] |^\w+\.cpp:\d+: ", re.MULTILINE)
_IDLE = re.compile(r"Make sure (input|output) .* has Int64 binding")


class Journal:
    """Lines of one build."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.dump = ""
        """The last `Layers:` block: one line per layer of the finished engine."""

    def write(self, severity: str, text: str) -> None:
        """Keep what is worth keeping; verbose lines other than the dump are dropped."""
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self.errors.append(text)
        elif severity == "WARNING" and not _IDLE.search(text):
            self.warnings.append(_plain(text))
        elif text.startswith(_DUMP_START):
            self.dump = text

    def reason(self) -> str:
        """The last error in one line, without the vendor's calls and source locations."""
        if not self.errors:
            return "no reason given"
        return _plain(self.errors[-1])


def _plain(text: str) -> str:
    return " ".join(_CALL.sub("", _LOCATION.sub("", text)).split())


class Logger(Protocol):
    """An object of the vendor's `ILogger` that writes into a journal."""


def attach(vendor: Vendor, journal: Journal) -> Logger:
    """A logger of the vendor's type that writes into the journal."""
    base = cast("type", vendor.ILogger)
    severities = numbered(vendor.ILogger.Severity)
    loud = {number for number, name in severities.items() if name in _LOUD}

    def start(self: object) -> None:
        base.__init__(self)  # type: ignore[misc]  # the vendor demands its own initializer

    def log(self: object, severity: Member, text: str) -> None:  # noqa: ARG001 - the vendor's signature
        number = int(severity)
        if number in loud or text.startswith(_DUMP_START):
            journal.write(severities[number], text)

    logger: Logger = type("JournalLogger", (base,), {"__init__": start, "log": log})()
    return logger
