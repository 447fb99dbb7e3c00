"""The arm64 root folder: Debian packages unpacked side by side, and arm64 wheels. No root rights, no chroot."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qpipe.errors import UnavailableError
from qpipe.home import home
from qpipe.hosts.program import last_line, run_program
from qpipe.records.engine import Ready, Unavailable

if TYPE_CHECKING:
    from qpipe.plugins.backend import Progress
from qpipe.plugins.packages import ABSENT, package_versions

QEMU = "qemu-aarch64-static"
HINT = "qpipe setup qemu-arm64"
DEBS = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libstdc++6", "libgcc-s1"),
    *("zlib1g", "libexpat1", "libssl3", "libffi8", "libbz2-1.0", "liblzma5", "libsqlite3-0", "libuuid1", "libcrypt1"),
)
_RUNTIMES = ("onnxruntime", "ai-edge-litert")
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
_CORE = """\
processor\t: {number}
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

"""
"""A Neoverse N1 as `/proc/cpuinfo` shows it: onnxruntime reads that file and crashes on an x86 one."""
_FETCH_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuRoot:
    """The root folder with the wheels beside it."""

    base: Path

    @property
    def folder(self) -> Path:
        """What qemu takes as `/` for libraries (`-L`)."""
        return self.base / "root"

    @property
    def packages(self) -> Path:
        """arm64 site-packages."""
        return self.base / "packages"

    @property
    def mark(self) -> Path:
        """Written last."""
        return self.base / "qpipe-tool.json"


def qemu_root() -> QemuRoot:
    """Where the root folder is, or would be."""
    return QemuRoot(base=home() / "tools" / "qemu-arm64")


def root_state() -> Ready | Unavailable:
    """Whether qemu and a whole root folder of this version are there."""
    if shutil.which(QEMU) is None:
        return Unavailable(reason=f"{QEMU} is not installed", hint="install qemu-user-static")
    root = qemu_root()
    try:
        found = json.loads(root.mark.read_text("utf-8")).get("contents")
    except (OSError, ValueError, AttributeError):
        return Unavailable(reason=f"the arm64 root folder is missing: {root.base}", hint=HINT)
    if found != _contents():
        return Unavailable(reason=f"the arm64 root folder is of another version: {root.base}", hint=HINT)
    return Ready()


def create_root(progress: Progress) -> QemuRoot:
    """Make the root folder (about a minute, 0.4 GB), or leave a whole one as it is.

    Raises:
        UnavailableError: qemu or apt is missing, or packages could not be fetched.
    """
    root = qemu_root()
    state = root_state()
    if isinstance(state, Ready):
        return root
    if shutil.which(QEMU) is None:
        raise UnavailableError(state.reason, hint=state.hint)
    shutil.rmtree(root.base, ignore_errors=True)
    root.folder.mkdir(parents=True)
    try:
        progress.step("fetch Debian packages for arm64", total=len(DEBS))
        _unpack_debs(root, progress)
        progress.step("fetch wheels for arm64")
        _install_wheels(root)
    except UnavailableError:
        shutil.rmtree(root.base, ignore_errors=True)
        raise
    cpuinfo = root.folder / "proc" / "cpuinfo"
    cpuinfo.parent.mkdir(exist_ok=True)
    cpuinfo.write_text("".join(_CORE.format(number=number) for number in range(2)), "ascii")
    root.mark.write_text(json.dumps({"contents": _contents()}), "utf-8")
    return root


def wheels() -> tuple[str, ...]:
    """The runtimes in the versions that run here, so that outputs can be compared; numpy as it comes."""
    here = package_versions(*_RUNTIMES)
    return ("numpy>=2,<3", *(f"{name}=={version}" for name, version in here if version != ABSENT))


def _contents() -> str:
    return hashlib.sha256("\n".join((*DEBS, *wheels(), _CORE)).encode()).hexdigest()


def _unpack_debs(root: QemuRoot, progress: Progress) -> None:
    state = root.base / "apt"
    for folder in ("lists/partial", "archives/partial", "debs"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    private = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "",
        "Dir::State": str(state),
        "Dir::State::status": str(state / "status"),
        "Dir::Cache": str(state),
    }
    options = tuple(part for key, value in private.items() for part in ("-o", f"{key}={value}"))
    _require(("apt-get", *options, "-q", "update"))
    names = " ".join(f"{name}:arm64" for name in DEBS)
    shell = f"cd '{state / 'debs'}' && exec apt-get \"$@\" -q download {names}"
    _require(("sh", "-c", shell, "sh", *options))
    for package in sorted((state / "debs").glob("*.deb")):
        _require(("dpkg-deb", "-x", str(package), str(root.folder)))
        progress.advance()
    shutil.rmtree(state, ignore_errors=True)


def _install_wheels(root: QemuRoot) -> None:
    platforms = tuple(part for name in _PLATFORMS for part in ("--platform", name))
    python = ("--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "abi3", "--abi", "none")
    command = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
    _require((*command, "--only-binary=:all:", "--target", str(root.packages), *platforms, *python, *wheels()))


def _require(command: tuple[str, ...]) -> None:
    ran = run_program(command, timeout_s=_FETCH_S)
    if not ran.ok:
        errors = [line for line in ran.stderr.splitlines() if not line.startswith(("WARNING", "W:"))]
        raise UnavailableError(
            f"the arm64 root folder could not be made: {command[0]}: {last_line(chr(10).join(errors) or ran.said)}",
            hint=f"with a network and Debian's apt: {HINT}",
        )
