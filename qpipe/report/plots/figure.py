"""A figure of matplotlib in our style, without pyplot's global state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = {
    "text.parse_math": False,  # names may hold a $
    "svg.hashsalt": "qpipe",  # the same run gives the same bytes
    "svg.fonttype": "none",  # text stays text: found by a search, and half the file
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "axes.edgecolor": "#94a3b8",
    "axes.axisbelow": True,
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
}


@contextmanager
def figure(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches, saved to `path` on the way out."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # the stub wants a Literal of every setting
        made = Figure(figsize=(width, height), layout="constrained")
        yield made
        made.savefig(path, format="svg", metadata={"Date": None})


def shown(name: str) -> str:
    """A name as it can be drawn: XML has no word for characters that cannot be printed."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
