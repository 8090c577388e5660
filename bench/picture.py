"""Line charts as SVG, readable on light and on dark pages."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 76, 56
LETTER = 7
"""About the width of a letter."""
COLOURS = ("a", "b", "c", "d")
MARKS = ("circle", "square", "diamond", "triangle")
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.page { fill: #ffffff; }
.title { font-size: 15px; font-weight: 600; }
.grid { stroke: #d0d7de; stroke-width: 1; }
.axis { stroke: #57606a; stroke-width: 1; }
.line { fill: none; stroke-width: 2; }
.limit { fill: none; stroke: #57606a; stroke-width: 1.5; stroke-dasharray: 6 4; }
.a { stroke: #0072b2; fill: #0072b2; } .b { stroke: #b35900; fill: #b35900; }
.c { stroke: #00795a; fill: #00795a; } .d { stroke: #a2458b; fill: #a2458b; }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117; } text { fill: #e6edf3; } .grid { stroke: #373e47; } .axis, .limit { stroke: #9198a1; }
  .a { stroke: #56b4e9; fill: #56b4e9; } .b { stroke: #e69f00; fill: #e69f00; }
  .c { stroke: #2fc498; fill: #2fc498; } .d { stroke: #e08cc8; fill: #e08cc8; }
}
.line.a, .line.b, .line.c, .line.d { fill: none; }
"""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart: measured points, and the two ends of what is drawn through them."""

    name: str
    points: Sequence[tuple[float, float]]
    line: tuple[tuple[float, float], tuple[float, float]] | None = None
    """None joins the points."""


def chart(title: str, x_label: str, y_label: str, series: Sequence[Series],
          limit: tuple[str, Sequence[tuple[float, float]]] | None = None) -> str:
    """An SVG document, both axes from 0; ``limit`` is a dashed line with its name."""
    every = [point for s in series for point in s.points] + list(limit[1] if limit else ())
    x_step, y_step = (_step(max((p[axis] for p in every), default=1) or 1) for axis in (0, 1))
    x_top, y_top = (step * math.ceil(max((p[axis] for p in every), default=1) / step - 1e-9) or step
                    for axis, step in ((0, x_step), (1, y_step)))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        return (round(LEFT + point[0] / x_top * (WIDTH - LEFT - RIGHT), 1),
                round(HEIGHT - BOTTOM - point[1] / y_top * (HEIGHT - TOP - BOTTOM), 1))

    def path(points: Sequence[tuple[float, float]], style: str) -> str:
        return f'<polyline class="{style}" points="{" ".join("{},{}".format(*place(p)) for p in points)}"/>'

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
           f'role="img"><title>{html.escape(title)}</title><style>{STYLE}</style>',
           f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
           f'<text class="title" x="{LEFT}" y="22">{html.escape(title)}</text>']
    for value in _ticks(y_top, y_step):
        x, y = place((0, value))
        out += [f'<line class="grid" x1="{x}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>',
                f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{value:g}</text>']
    for value in _ticks(x_top, x_step):
        x, y = place((value, 0))
        out += [f'<line class="axis" x1="{x}" y1="{y}" x2="{x}" y2="{y + 5}"/>',
                f'<text x="{x}" y="{y + 20}" text-anchor="middle">{value:g}</text>']
    base = HEIGHT - BOTTOM
    out += [f'<line class="axis" x1="{LEFT}" y1="{base}" x2="{WIDTH - RIGHT}" y2="{base}"/>',
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">'
            f'{html.escape(x_label)}</text>',
            f'<text transform="translate(16 {(TOP + base) / 2}) rotate(-90)" text-anchor="middle">'
            f'{html.escape(y_label)}</text>']
    if limit:
        out.append(path(limit[1], "limit"))
    names: list[tuple[str, str]] = []
    for index, s in enumerate(series):
        colour, mark = COLOURS[index % len(COLOURS)], MARKS[index % len(MARKS)]
        out.append(path(s.line or s.points, f"line {colour}"))
        out += [_mark(*place(p), mark, colour) for p in s.points]
        names.append((s.name, _mark(0, -4, mark, colour)))
    if limit:
        names.append((limit[0], '<line class="limit" x1="-8" y1="-4" x2="8" y2="-4"/>'))
    across = LEFT + 8
    for name, sign in names:
        out.append(f'<g transform="translate({across} 50)">{sign}<text x="14" y="0">{html.escape(name)}</text></g>')
        across += 44 + LETTER * len(name)
    return "\n".join([*out, "</svg>"]) + "\n"


def _mark(x: float, y: float, shape: str, colour: str) -> str:
    if shape == "circle":
        return f'<circle class="{colour}" cx="{x}" cy="{y}" r="4"/>'
    corners = {"square": ((-4, -4), (4, -4), (4, 4), (-4, 4)), "diamond": ((0, -6), (6, 0), (0, 6), (-6, 0)),
               "triangle": ((0, -5), (5, 4), (-5, 4))}[shape]
    text = " ".join(f"{x + dx:g},{y + dy:g}" for dx, dy in corners)
    return f'<polygon class="{colour}" points="{text}"/>'


def _step(top: float) -> float:
    """A round distance between ticks that gives four to eight of them."""
    rough = top / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return float(min((1, 2, 5, 10), key=lambda m: abs(m * power - rough)) * power)


def _ticks(top: float, step: float) -> list[float]:
    return [round(i * step, 10) for i in range(round(top / step) + 1)]
