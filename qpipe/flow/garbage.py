"""Python's search for garbage, kept from what a run imports: MLflow leaves a million objects, and none of them is any.

Each look at all of them takes a quarter of a second: while they are made, while cells are logged, and at the end.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from qpipe.measure.collector import no_collector


@contextmanager
def importing() -> Iterator[None]:
    """No search inside; what is there at the end is set aside, if the caller's program has set nothing aside itself."""
    with no_collector():
        try:
            yield
        finally:
            if not gc.get_freeze_count():
                gc.freeze()


@contextmanager
def looked_through_again() -> Iterator[None]:
    """What is set aside inside is an object like any other afterwards: the caller's garbage may be among it."""
    before = gc.get_freeze_count()
    try:
        yield
    finally:
        if not before:
            gc.unfreeze()
