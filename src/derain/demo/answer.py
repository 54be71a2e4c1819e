"""What the page gets for a picture: the same before and after to look at, and the derained one as a file."""

from __future__ import annotations

import io
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from derain.data.pictures import read_picture
from derain.report.slider import jpeg, scaled_down
from derain.types import DataError

MOST_BYTES = 64 * 2**20
"""Of a picture's file."""
TOO_LARGE = f"The file is larger than {MOST_BYTES // 2**20} MiB. Use `derain run`."
MOST_PIXELS = 50_000_000
"""Of a picture; more would keep the network busy for minutes."""
SHOWN_SIDE = 2048
"""Pixels; a longer picture is shown scaled down, and downloaded whole."""
SHOWN_QUALITY = 95


class Restorer(Protocol):
    """What takes the rain off: uint8 (H, W, 3) in and out."""

    def restore(self, rainy: NDArray[np.uint8]) -> NDArray[np.uint8]: ...


class Part(NamedTuple):
    """One of the answer's pictures: what it is, its media type, its bytes."""

    name: str
    media_type: str
    content: bytes


class Answer(NamedTuple):
    """The size of the picture in pixels, the suffix of the derained file, and the pictures themselves."""

    width: int
    height: int
    suffix: str
    parts: tuple[Part, ...]


def answer(content: bytes, network: Restorer) -> Answer:
    """Derains the picture that the bytes of a file hold.

    Raises:
        DataError: it is no picture, damaged, or too large.
        NumericError: the network's estimate is not finite.
    """
    rainy = read_picture(io.BytesIO(content), "This file")
    height, width = rainy.shape[:2]
    if height * width > MOST_PIXELS:
        most = MOST_PIXELS // 10**6
        raise DataError(f"{width} × {height} pixels are more than the {most} million of this page. Use `derain run`.")
    derained = network.restore(rainy)
    encoded = io.BytesIO()
    Image.fromarray(derained).save(encoded, "PNG")
    file = Part("file", "image/png", encoded.getvalue())
    return Answer(width, height, ".png", (_shown("rainy", rainy), _shown("derained", derained), file))


def _shown(name: str, picture: NDArray[np.uint8]) -> Part:
    return Part(name, "image/jpeg", jpeg(scaled_down(Image.fromarray(picture), SHOWN_SIDE), SHOWN_QUALITY))
