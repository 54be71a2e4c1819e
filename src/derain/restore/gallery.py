"""The page of `derain run --report`: each picture before and after, in one file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from derain.web.markup import Markup, asset, document, element
from derain.web.slider import as_jpeg, slider

QUALITY = 88
LONGEST_SIDES = ((16_000_000, 1024), (32_000_000, 640), (64_000_000, 400))
"""While the page holds fewer characters of pictures than the first number: the longest side of the next in pixels."""

HINT = (
    "Move the line, by dragging or with the arrow keys, between the rainy picture and the de-rained one. Large "
    "pictures are shown scaled down."
)


class Gallery:
    """Collects pictures, scaled down and encoded at once: memory and page stay below some 65 MB however many come."""

    def __init__(self) -> None:
        self._pictures: list[Markup] = []
        self._failures: list[Markup] = []
        self._held = 0

    def add(self, name: str, rainy: NDArray[np.uint8], derained: NDArray[np.uint8], notes: Sequence[str] = ()) -> None:
        """A picture before and after, uint8 RGB of equal shapes (height, width, 3), and what there is to say on it."""
        height, width = rainy.shape[:2]
        side = next((side for limit, side in LONGEST_SIDES if self._held < limit), None)
        self._pictures.append(
            element(
                "section",
                element("h2", name, element("small", f"{width} × {height}")),
                *(self._compared(name, rainy, derained, side) if side else [_left_out()]),
                *(element("p", note, class_="note") for note in notes),
            )
        )

    def _compared(
        self, name: str, rainy: NDArray[np.uint8], derained: NDArray[np.uint8], longest_side: int
    ) -> list[Markup]:
        before, after = (as_jpeg(Image.fromarray(picture), longest_side, QUALITY) for picture in (rainy, derained))
        self._held += len(before.source) + len(after.source)
        key = f"picture-{len(self._pictures)}"
        figures = [before.figure(f"{key}-rainy", name, "rainy"), after.figure(f"{key}-derained", name, "de-rained")]
        return [slider(name, f"{key}-rainy", f"{key}-derained"), element("div", *figures, class_="two")]

    def add_failure(self, name: str, reason: str) -> None:
        """A picture that could not be de-rained, and why."""
        self._failures.append(element("li", element("b", name), " ", reason))

    def html(self, title: str) -> str:
        """The whole page; the same pictures give the same bytes."""
        header = element(
            "header",
            element("p", "Before and after", class_="eyebrow"),
            element("h1", title),
            element("p", _counted(len(self._pictures), len(self._failures)), class_="lead"),
            element("p", HINT, class_="note") if self._pictures else None,
        )
        failed = element("section", element("h2", "Failed"), element("ul", *self._failures), class_="failed")
        pictures = element("div", *self._pictures, class_="gallery")
        main = element("main", header, failed if self._failures else None, pictures)
        return document(title, main, [asset("gallery.css", "derain.restore")])


def _counted(pictures: int, failures: int) -> str:
    done = f"{pictures} picture{'s' * (pictures != 1)} de-rained"
    return f"{done}, {failures} failed." if failures else f"{done}."


def _left_out() -> Markup:
    return element("p", "Not shown: the page is full. The de-rained picture is in the output folder.", class_="note")
