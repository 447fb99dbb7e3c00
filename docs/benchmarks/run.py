"""All benchmarks, one after the other: `make bench`. Exits with 1 where one of them missed a figure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from machine import require_data

NOT_BENCHMARKS = ("depthwise_net.py", "machine.py", "recount.py", "run.py")


def main() -> int:
    """Run every script of this folder; each prints a table of its own."""
    require_data()
    codes = []
    for script in sorted(Path(__file__).parent.glob("*.py")):
        if script.name not in NOT_BENCHMARKS:
            print(f"\n## {script.stem}\n", flush=True)
            codes.append(subprocess.run([sys.executable, str(script)], check=False).returncode)
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
