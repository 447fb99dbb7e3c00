"""A figure of matplotlib in our style, without pyplot's global state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    "axes.titley": 1.0,  # not looked for anew at each drawing
    "axes.formatter.useoffset": False,  # "+9.7e-1" would stand in the title
}
LETTER_INCHES = 0.083
"""Width of a letter at most, as it is on average in a name of our size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """Inches around the axes, and between panels."""

    left: float = 0.75
    right: float = 0.15
    top: float = 0.4
    bottom: float = 0.5
    between: float = 0.4


MARGINS = Margins()


@contextmanager
def figure(path: Path, width: float, height: float, margins: Margins = MARGINS, panels: int = 1) -> Iterator[Figure]:
    """A figure of so many inches for a row of panels, saved to `path` on the way out.

    Margins are given, since matplotlib's layout engines draw everything twice before they draw it.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]  # the stub wants a Literal of every setting
        made = Figure(figsize=(width, height))
        made.subplots_adjust(**_shares(width, height, margins, panels))
        yield made
        made.savefig(path, format="svg", metadata={"Date": None})


def _shares(width: float, height: float, margins: Margins, panels: int) -> dict[str, float]:
    """The margins as matplotlib wants them: shares of the figure, and of the width of a panel."""
    room = width - margins.left - margins.right - margins.between * (panels - 1)
    return {
        "left": margins.left / width,
        "right": 1 - margins.right / width,
        "bottom": margins.bottom / height,
        "top": 1 - margins.top / height,
        "wspace": margins.between * panels / room,
    }


def shown(name: str) -> str:
    """A name as it can be drawn: XML has no word for characters that cannot be printed."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
