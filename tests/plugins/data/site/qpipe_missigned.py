"""A plugin whose second hook wants an argument that nobody gives."""

from collections.abc import Iterable

from qpipe.plugins.hookspecs import hookimpl
from qpipe.records.target import Target


@hookimpl
def qpipe_targets() -> Iterable[Target]:
    yield Target(name="never-seen", backend="fake")


@hookimpl
def qpipe_stages(context: object) -> Iterable[object]:
    return ()
