"""SVG by hand: our plots are a few hundred marks, and a library that can draw everything takes seconds to import."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Literal

INK, SOFT, GRID = "#0f172a", "#94a3b8", "#e2e8f0"
SIZE = 11
"""Height of a text, in pixels as everything here."""
_LETTER = 6.4
"""A generous width of a letter of that height."""

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]


def document(width: float, height: float, parts: Iterable[str]) -> str:
    """A whole file, on white whatever it is shown on; the same parts give the same bytes."""
    size = f'width="{_px(width)}" height="{_px(height)}" viewBox="0 0 {_px(width)} {_px(height)}"'
    font = f'font-family="system-ui, \'DejaVu Sans\', sans-serif" font-size="{SIZE}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}><rect width="100%" height="100%" fill="#fff"/>'
    return "\n".join((head, *parts, "</svg>\n"))


def text(
    at: Point, content: str, *, anchor: Anchor = "start", colour: str = INK, bold: bool = False, upright: bool = False
) -> str:
    """A line of text, its baseline at that point; `upright` runs upwards."""
    x, y = map(_px, at)
    more = (' font-weight="600"' if bold else "") + (f' transform="rotate(-90 {x} {y})"' if upright else "")
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in content)  # XML has no word for others
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}"{more}>{escape(shown, quote=False)}</text>'


def text_width(content: str) -> float:
    """About how wide a text becomes, rather more."""
    return _LETTER * len(content)


def line(start: Point, end: Point, *, colour: str = SOFT, width: float = 1.0, dashed: bool = False) -> str:
    """A straight line."""
    (x1, y1), (x2, y2) = (map(_px, start), map(_px, end))
    dash = ' stroke-dasharray="5 3"' if dashed else ""
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="{_px(width)}"{dash}/>'


def curve(points: Iterable[Point], *, colour: str, width: float, opacity: float = 1.0, clip: str = "") -> str:
    """Lines from point to point; `clip` names what nothing is drawn outside of."""
    path = " ".join(f"{_px(x)},{_px(y)}" for x, y in points)
    more = (f' opacity="{opacity:g}"' if opacity < 1 else "") + (f' clip-path="url(#{clip})"' if clip else "")
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{_px(width)}"{more}/>'


def clip_path(name: str, corner: Point, width: float, height: float) -> str:
    """A rectangle for `curve` to stay in."""
    x, y = map(_px, corner)
    return f'<clipPath id="{name}"><rect x="{x}" y="{y}" width="{_px(width)}" height="{_px(height)}"/></clipPath>'


def dot(at: Point, radius: float, *, colour: str) -> str:
    """A filled circle."""
    return f'<circle cx="{_px(at[0])}" cy="{_px(at[1])}" r="{_px(radius)}" fill="{colour}"/>'


def ring(at: Point, radius: float, *, colour: str) -> str:
    """A circle around a mark."""
    place = f'cx="{_px(at[0])}" cy="{_px(at[1])}" r="{_px(radius)}"'
    return f'<circle {place} fill="none" stroke="{colour}" stroke-width="2"/>'


def square(at: Point, radius: float, *, colour: str) -> str:
    """A filled square."""
    x, y = (_px(value - radius) for value in at)
    return f'<rect x="{x}" y="{y}" width="{_px(2 * radius)}" height="{_px(2 * radius)}" fill="{colour}"/>'


def _px(value: float) -> str:
    """A tenth of a pixel is more than anybody sees."""
    return f"{value:.1f}".removesuffix(".0")
