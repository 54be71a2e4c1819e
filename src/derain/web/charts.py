"""Small charts: lines and bars in SVG, heat tables in HTML. Colours and fonts are the page's style sheet's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from derain.web.markup import Markup, element, scrolling
from derain.web.wording import number

WIDTH, HEIGHT = 360, 212
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 16, 16, 26
_CHARACTER = 6.2
"""About the width of a character of the charts' text, which decides whether the names under the x axis fit."""
_CLOSE = 30
"""Two points, one above the other, are so close that a value between them would be in the way."""

Point = tuple[float, float]


class Line(NamedTuple):
    """A line of (x, y) points in order of x.

    `marked` puts a circle and its value, to so many `digits`, at each, a full circle at `filled`.
    """

    look: Literal["main", "other"]
    points: Sequence[Point]
    marked: bool = False
    filled: int | None = None
    digits: int = 1


class Cell(NamedTuple):
    """A cell of a heat table: its text, its heat in [0, 1] and whether it is outlined."""

    text: str
    heat: float
    outlined: bool = False


def line_chart(
    description: str,
    lines: Sequence[Line],
    x_ticks: Sequence[tuple[float, str]],
    baseline: float | None = None,
    span: Sequence[float] = (),
) -> Markup:
    """Lines over common axes, and a dashed level `baseline` that bears its value; the y axis holds `span` too."""
    levels = [y for line in lines for _, y in line.points]
    middle = fmean(levels)
    levels += [*span, *([] if baseline is None else [baseline])]
    room = 0.14 * (max(levels) - min(levels)) or 0.5
    low, high = min(levels) - room, max(levels) + room
    x_of = _Scale(min(x for x, _ in x_ticks), max(x for x, _ in x_ticks), _LEFT, WIDTH - _RIGHT)
    y_of = _Scale(low, high, HEIGHT - _BOTTOM, _TOP)
    pixels = [[(x_of(x), y_of(y)) for x, y in line.points] for line in lines]
    every = [point for own in pixels for point in own]
    drawn = [_line(own, line, every) for own, line in zip(pixels, lines, strict=True)]
    if baseline is not None:
        drawn.insert(0, _baseline(y_of(baseline), f"{baseline:.1f}", below=baseline < middle))
    return element(
        "svg",
        *_y_axis(nice_ticks(low, high), y_of),
        *_x_axis(x_ticks, x_of),
        *drawn,
        class_="lines",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=description,
    )


def stacked_bar(description: str, parts: Sequence[tuple[str, float]]) -> Markup:
    """A bar of full width 1, with parts (class of the style sheet, width) from the left."""
    drawn, at = [], 0.0
    for name, width in parts:
        drawn.append(element("rect", class_=name, x=_px(100 * at), y=0, width=_px(100 * width), height=10))
        at += width
    return element(
        "svg",
        element("rect", class_="rest", x=0, y=0, width=100, height=10),
        *drawn,
        class_="bar",
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        role="img",
        aria_label=description,
    )


def legend(*entries: tuple[str, str]) -> Markup:
    """Swatches with their names: entries of (class of the style sheet, name)."""
    return element(
        "p",
        *(element("span", element("i", class_=f"swatch {look}"), name) for look, name in entries),
        class_="legend",
    )


def heat_table(
    description: str, corner: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]]
) -> Markup:
    """A table whose cells are shaded by their heat; `corner` says what its rows are."""
    head = element("tr", element("th", corner), *(element("th", name, scope="col") for name in columns))
    body = [
        element("tr", element("th", name, scope="row"), *(_heat_cell(cell) for cell in cells)) for name, cells in rows
    ]
    table = element("table", element("thead", head), element("tbody", *body))
    return scrolling(table, description)


def nice_ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers within [low, high]."""
    magnitude = 10.0 ** math.floor(math.log10(high - low))
    step = next(
        step * scale
        for scale in (magnitude / 10, magnitude)
        for step in (1, 2, 5)
        if (high - low) / (step * scale) <= 5.5
    )
    return [round(count * step, 10) + 0.0 for count in range(math.ceil(low / step), math.floor(high / step) + 1)]


class _Scale(NamedTuple):
    """A linear scale from [low, high] to pixels; a single value falls into the middle."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.end - self.start)


def _y_axis(ticks: Sequence[float], y_of: _Scale) -> list[Markup]:
    digits = max(len(f"{tick:g}".partition(".")[2]) for tick in ticks)
    lines = [_level("grid", y_of(tick)) for tick in ticks]
    return lines + [_text(number(tick, f".{digits}f"), _LEFT - 6, y_of(tick) + 4, "end") for tick in ticks]


def _x_axis(ticks: Sequence[tuple[float, str]], x_of: _Scale) -> list[Markup]:
    """The ticks' names, or numbers from 1 on where the names would overlap."""
    if sum(len(name) + 2 for _, name in ticks) * _CHARACTER > WIDTH - _LEFT - _RIGHT:
        ticks = [(x, str(place)) for place, (x, _) in enumerate(ticks, 1)]
    return [_text(name, x_of(x), HEIGHT - 7, _anchor(x_of(x))) for x, name in ticks]


def _baseline(y: float, label: str, below: bool) -> Markup:
    text = _text(label, WIDTH - _RIGHT, y + 14 if below else y - 6, "end", "label")
    return element("g", _level("", y), text, class_="baseline")


def _heat_cell(cell: Cell) -> Markup:
    look = "heat outlined" if cell.outlined else "heat"
    return element("td", cell.text, class_=look, style=f"--heat:{cell.heat:.3f}")


def _line(pixels: Sequence[Point], line: Line, every: Sequence[Point]) -> Markup:
    path = " ".join(f"{_px(x)},{_px(y)}" for x, y in pixels)
    marks: list[Markup] = []
    if line.marked:
        looks = ["filled" if place == line.filled else "hollow" for place in range(len(pixels))]
        marks += [
            element("circle", class_=look, cx=_px(x), cy=_px(y), r=4)
            for look, (x, y) in zip(looks, pixels, strict=True)
        ]
        marks += [
            _text(f"{value:.{line.digits}f}", x, y + (17 if _below(pixels, place, every) else -9), _anchor(x), "label")
            for place, ((x, y), (_, value)) in enumerate(zip(pixels, line.points, strict=True))
        ]
    return element("g", element("polyline", points=path), *marks, class_=line.look)


def _below(pixels: Sequence[Point], place: int, every: Sequence[Point]) -> bool:
    """Whether a point's value belongs below it: another line is close above, or else its own line runs above."""
    x, y = pixels[place]
    close = [other for at, other in every if at == x and 0 < abs(other - y) < _CLOSE]
    if close:
        return min(close, key=lambda other: abs(other - y)) < y
    around = [pixels[near][1] for near in (place - 1, place + 1) if 0 <= near < len(pixels)]
    return bool(around) and fmean(around) < y


def _level(look: str, y: float) -> Markup:
    return element("line", class_=look or None, x1=_LEFT, x2=WIDTH - _RIGHT, y1=_px(y), y2=_px(y))


def _text(text: str, x: float, y: float, anchor: str, look: str | None = None) -> Markup:
    return element("text", text, class_=look, x=_px(x), y=_px(y), text_anchor=anchor)


def _anchor(x: float) -> str:
    """Keeps a text at the edge of the plot within it."""
    if x <= _LEFT + 1:
        return "start"
    return "end" if x >= WIDTH - _RIGHT - 1 else "middle"


def _px(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
