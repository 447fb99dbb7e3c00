"""The command line. Importing it is light; each command imports its work when it is called."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `qpipe` program."""
    import gc
    import signal
    import sys

    try:
        from qpipe.cli.guarded import run_app

        code = run_app(sys.argv[1:])
    except KeyboardInterrupt:  # pressed before there was anything to interrupt
        code = 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said: pressed now, nothing more
    gc.freeze()  # nor is garbage looked for: half a second after MLflow, and all memory is given back at once
    sys.exit(code)
