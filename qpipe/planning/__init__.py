"""From a pipeline to cells: every model × recipe × target with the three keys that name its work."""

from qpipe.planning.expand import expand

__all__ = ["expand"]
