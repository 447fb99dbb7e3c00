"""`python -m qpipe` is the same as `qpipe`."""

from qpipe.cli import main

main()
