"""Two pictures one over the other, with a line to move between them: the markup of slider.css and slider.js."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

from PIL import Image

from derain.web.markup import Markup, element


class Embedded(NamedTuple):
    """A picture as the value of an image's src, and its size in pixels."""

    source: str
    width: int
    height: int

    def figure(self, key: str, name: str, what: str, quality: str | None = None) -> Markup:
        """The picture under the id `key`, and below it what it shows of `name`."""
        return element(
            "figure",
            element("img", id=key, src=self.source, width=self.width, height=self.height, alt=f"{name}, {what}"),
            element("figcaption", what, None if quality is None else element("br"), quality),
        )


def as_it_is(kind: str, content: bytes, picture: Image.Image) -> Embedded:
    """A picture whose encoded bytes are `content`, of the media type image/`kind`."""
    return Embedded(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", *picture.size)


def as_jpeg(picture: Image.Image, longest_side: int, quality: int) -> Embedded:
    """A picture (RGB) as JPEG, scaled down where a side is longer than `longest_side` pixels."""
    scaled = scaled_down(picture, longest_side)
    return as_it_is("jpeg", jpeg(scaled, quality), scaled)


def scaled_down(picture: Image.Image, longest_side: int) -> Image.Image:
    """The picture itself where no side is longer than so many pixels, else a smaller one."""
    scaled = picture.copy()
    scaled.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    return scaled


def jpeg(picture: Image.Image, quality: int) -> bytes:
    """The bytes of a JPEG file."""
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=quality, optimize=True)
    return encoded.getvalue()


def slider(name: str, rainy: str | None = None, derained: str | None = None) -> Markup:
    """The slider of a picture; hidden until the script gives it its pictures.

    `rainy` and `derained` are the ids of images in the page, which it then shows again; without them another script
    gives it the pictures.
    """
    return element(
        "div",
        element("span", "rainy", class_="left"),
        element("span", "de-rained", class_="right"),
        element("input", type="range", min=0, max=100, value=50, step="any", aria_label=f"{name}: percent of it rainy"),
        class_="slider",
        data_over=rainy,
        data_under=derained,
        hidden="hidden",
    )
