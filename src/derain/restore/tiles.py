"""A picture in tiles: where they lie, how large they may be, and how their results become one picture again.

Every tile answers for a core of its own and sees `overlap` pixels more on each side. A pixel of a convolutional
network depends on no other farther away than the network's receptive radius: with an overlap of at least that, each
core is what the whole picture would have given, and cores are set side by side. With less overlap, or where a network
sees everything at once (a global mean, attention), what two tiles say of the pixels that both see is blended by linear
ramps, which hides the seam and leaves a difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

GRID = 16
"""Tiles begin at multiples of it, so that a network that halves the picture up to four times meets the same phases.

Of more for a network whose sides must be multiples of another number: see `Reach`.
"""


class Core(NamedTuple):
    """Height and width in pixels of what an inner tile answers for; an outer one answers up to the picture's edge."""

    height: int
    width: int


@dataclass(frozen=True)
class Reach:
    """How far a tile sees beyond its core, and how far two tiles blend on each side of their border, in pixels.

    Tiles begin at multiples of `grid`.
    """

    overlap: int
    ramp: int
    grid: int = GRID

    @property
    def margin(self) -> int:
        """What a tile sees more than its core along an axis, in whole cells of the grid."""
        return self.up(2 * self.overlap)

    def up(self, number: int) -> int:
        """The next multiple of the grid."""
        return -(-number // self.grid) * self.grid


class Span(NamedTuple):
    """One tile along one axis: it sees `seen` of the picture, and adds to `used` of it with the weights."""

    seen: slice
    used: slice
    weights: NDArray[np.float32]


def spans(length: int, core: int, reach: Reach) -> list[Span]:
    """The tiles along an axis of that length; at every pixel their weights sum to one.

    All see equally much (but for the last, and the grid): blocks of equal size find their place in memory again.
    """
    both = 2 * reach.overlap
    tiles = []
    for start in range(0, max(1, length - both), core):
        last = start + core + both >= length
        begin, end = start + reach.overlap, start + reach.overlap + core
        seen = slice(start // reach.grid * reach.grid, length if last else min(length, reach.up(start + core + both)))
        used = slice(begin - reach.ramp if start else 0, length if last else end + reach.ramp)
        pixels = np.arange(used.start, used.stop)
        weights = _rise(pixels, begin, reach.ramp) if start else np.ones(len(pixels))
        if not last:
            weights = weights - _rise(pixels, end, reach.ramp)
        tiles.append(Span(seen, used, weights.astype(np.float32)))
    return tiles


def _rise(pixels: NDArray[np.int_], border: int, ramp: int) -> NDArray[np.float64]:
    """From 0 at `ramp` pixels before a border to 1 as far behind it; a step where the ramp is 0."""
    if ramp == 0:
        return (pixels >= border).astype(np.float64)
    return np.clip((pixels + 0.5 - border + ramp) / (2 * ramp), 0, 1)


class Taken(NamedTuple):
    """The bytes that a network takes for a picture: so many a pixel, and, where it relates every pixel to every other
    one (global attention), so many a pair of pixels."""

    pixel: float
    pair: float = 0.0

    def __call__(self, pixels: int) -> float:
        return (self.pixel + self.pair * pixels) * pixels


def memory(height: int, width: int, core: Core, reach: Reach, taken: Taken) -> float:
    """The bytes that a picture takes in tiles: those of a tile, and of the estimates of a row of tiles."""
    seen = Core(min(height, core.height + reach.margin), min(width, core.width + reach.margin))
    return taken(seen.height * seen.width) + 12 * seen.height * width


def fit(height: int, width: int, reach: Reach, taken: Taken, most: float) -> Core | None:
    """The cores with which a picture takes the fewest computed pixels within `most` bytes; None where none fit."""
    best: tuple[int, Core] | None = None
    rows = -(-height // reach.grid)
    for columns in range(1, -(-width // reach.grid) + 1):

        def split(rows: int, columns: int = columns) -> Core:
            return Core(_core(height, rows, reach), _core(width, columns, reach))

        # More columns never ask for more rows.
        while rows > 1 and memory(height, width, split(rows - 1), reach, taken) <= most:
            rows -= 1
        computed = (width + reach.margin * (columns - 1)) * (height + reach.margin * (rows - 1))
        if memory(height, width, split(rows), reach, taken) <= most and (best is None or computed < best[0]):
            best = computed, split(rows)
    return best and best[1]


def _core(length: int, tiles: int, reach: Reach) -> int:
    """The core with which so many tiles cover an axis."""
    return length if tiles == 1 else max(reach.grid, reach.up(-(-(length - 2 * reach.overlap) // tiles)))


def join(
    height: int,
    width: int,
    core: Core,
    reach: Reach,
    estimate: Callable[[slice, slice], NDArray[np.float32]],
    finish: Callable[[slice, NDArray[np.float32]], None],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Puts the estimates of tiles together, a band of rows at a time, so that no picture of float32 is ever held whole.

    Args:
        estimate: the network's answer (h, w, 3) for the part of the picture that two slices name.
        finish: takes the finished rows, from top to bottom, as an array (h, width, 3) that it may overwrite.
        progress: called with the number of tiles done and of all.
    """
    rows, columns = spans(height, core.height, reach), spans(width, core.width, reach)
    # One for all rows, and no estimate outlives its tile: either would lie in the way of the next blocks of memory.
    band = np.zeros((max(len(row.weights) for row in rows), width, 3), np.float32)
    done = 0
    for number, row in enumerate(rows, 1):
        for column in columns:
            band[: len(row.weights), column.used] += _weighted(row, column, estimate(row.seen, column.seen))
            done += 1
            if progress is not None:
                progress(done, len(rows) * len(columns))
        bottom = rows[number].used.start if number < len(rows) else height
        finished, kept = bottom - row.used.start, row.used.stop - bottom
        finish(slice(row.used.start, bottom), band[:finished])
        band[:kept] = band[finished : finished + kept]
        band[kept:] = 0


def _weighted(row: Span, column: Span, estimate: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a tile adds to the picture."""
    top, left = (span.used.start - span.seen.start for span in (row, column))
    used = estimate[top : top + len(row.weights), left : left + len(column.weights)]
    return used * row.weights[:, None, None] * column.weights[:, None]
