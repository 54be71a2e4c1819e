"""What the page gets for a picture: the same before and after to look at, and the derained one as a file."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

from derain.restore.formats import WRITTEN, Decoded, decode, encode
from derain.restore.run import Restorer, derain_picture
from derain.types import DataError
from derain.web.slider import jpeg, scaled_down

MOST_BYTES = 64 * 2**20
"""Of a picture's file."""
TOO_LARGE = f"The file is larger than {MOST_BYTES // 2**20} MiB. Use `derain run`."
MOST_PIXELS = 50_000_000
"""Of a picture; more would keep the network busy for minutes."""
SHOWN_SIDE = 2048
"""Pixels; a longer picture is shown scaled down, and downloaded whole."""
SHOWN_QUALITY = 95


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
    try:
        rainy = decode(content)
    except DataError as error:
        raise DataError(f"This file {error}.") from None
    height, width = rainy.levels.shape[:2]
    if height * width > MOST_PIXELS:
        most = MOST_PIXELS // 10**6
        raise DataError(f"{width} × {height} pixels are more than the {most} million of this page. Use `derain run`.")
    derained = derain_picture(rainy, network)
    written = rainy.format if rainy.format in WRITTEN else "PNG"
    encoded, _ = encode(derained, written)
    file = Part("file", Image.MIME.get(written, "application/octet-stream"), encoded)
    return Answer(width, height, WRITTEN[written], (_shown("rainy", rainy), _shown("derained", derained), file))


def _shown(name: str, picture: Decoded) -> Part:
    return Part(name, "image/jpeg", jpeg(scaled_down(Image.fromarray(picture.rgb8), SHOWN_SIDE), SHOWN_QUALITY))
