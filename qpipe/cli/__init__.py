"""The command line. Importing it is light; each command imports its work when it is called."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `qpipe` program."""
    import sys

    from qpipe.cli.guarded import run_app

    sys.exit(run_app(sys.argv[1:]))
