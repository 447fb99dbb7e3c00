"""Engine folders: `engine.json` and the binaries it lists, immutable and named by digest."""

from qpipe.engines.folder import MANIFEST, read_engine, write_engine
from qpipe.engines.machine import check_requirements, cpu_flags

__all__ = ["MANIFEST", "check_requirements", "cpu_flags", "read_engine", "write_engine"]
