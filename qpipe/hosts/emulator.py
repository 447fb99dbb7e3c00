"""arm64 without a device: qemu-user on a root folder of Debian packages. Times there mean nothing."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from pathlib import Path

from qpipe.errors import EngineError, TargetError
from qpipe.hosts.program import last_line, work_folder_name
from qpipe.hosts.qemu_root import HINT, QEMU, qemu_root, root_state
from qpipe.records.engine import Kind, Ready, Unavailable

CPU = "neoverse-n1"
"""The default (`-cpu max`) computes wrong INT8 outputs with LiteRT, without any error."""
NAME = "qemu-aarch64"
NAMES = (NAME, "qemu-arm64")
"""Two names of one emulator: qemu's own for the program, and Debian's for the machine."""


class EmulatedDevice:
    """`qemu-aarch64`: the arm64 wheels of the runtimes under qemu-user."""

    kind: Kind = "emulated"

    def __init__(self, name: str, *, cpu: str = CPU) -> None:
        if name not in NAMES:
            raise TargetError(f"no emulator {name!r}", hint=f"host: {{kind: emulator, address: {NAME}}}")
        self._cpu = cpu
        self._folder = Path(tempfile.gettempdir()) / work_folder_name()

    def check(self) -> Ready | Unavailable:
        """Whether qemu and the root folder are there."""
        return root_state()

    def fingerprint(self) -> str:
        """The emulated CPU, and what emulates it."""
        return f"aarch64 {self._cpu} emulated on {platform.machine()}"

    def environment(self) -> str:
        """Digest of the emulator, the CPU that it plays, and every file of the root folder and the wheels.

        The program is read; files are known by path, size and time of change. Bytecode does not count.
        """
        root = qemu_root()
        found = hashlib.sha256(self._cpu.encode())
        program = shutil.which(QEMU)
        found.update(Path(program).read_bytes() if program else b"")
        for folder in (root.folder, root.packages):
            for path in sorted(folder.rglob("*")):
                if path.suffix != ".pyc" and path.is_file() and not path.is_symlink():
                    state = path.stat()
                    found.update(f"{path.relative_to(root.base)} {state.st_size} {state.st_mtime_ns}\n".encode())
        return found.hexdigest()

    def push(self, source: Path, name: str) -> None:
        """Copy into a temporary folder of this machine."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            shutil.copyfile(source, self._folder / name)
        except OSError as problem:
            raise EngineError(
                f"{NAME}: {name} cannot be copied to {self._folder}: {problem.strerror}",
                hint="TMPDIR names another folder",
            ) from problem

    def command(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """Qemu with the root's Python and wheels."""
        root = qemu_root()
        clean = ("env", "-i", f"PYTHONPATH={root.packages}", "LC_ALL=C.UTF-8", f"HOME={self._folder}")
        script = str(self._folder / arguments[0])
        python = str(root.folder / "usr" / "bin" / "python3.11")
        qemu = shutil.which(QEMU, path=os.environ.get("PATH")) or QEMU
        return (*clean, qemu, "-cpu", self._cpu, "-L", str(root.folder), python, script, *arguments[1:])

    def explain(self, said: str) -> str:
        """Qemu's or Python's last line."""
        return f"{NAME}: {last_line(said)} (`{HINT}` makes the root folder anew)"

    def remove(self) -> None:
        """Remove the temporary folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
