"""Picture files: listing a folder, decoding one file to 8-bit RGB, writing one."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from derain.disk.atomic import write_atomically
from derain.types import DataError

SUFFIXES = {
    ".png": "PNG",
    ".apng": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".gif": "GIF",
}
"""The formats that are read, by suffix. Which one a file has is told by its content.

Pillow knows some forty formats more, a few of which start other programs; pictures of rain come in these.
"""

FORMATS = tuple(dict.fromkeys(SUFFIXES.values()))


def read_picture(source: Path | BinaryIO, name: str | None = None) -> np.ndarray:
    """Decodes a picture to uint8 RGB, shape (height, width, 3).

    Grey becomes three equal channels, palettes and CMYK are converted, transparency is dropped, the camera's
    orientation (EXIF) is applied, and of 16 bits the high 8 are kept (an 8-bit value v stored as 257 v is v again).

    Args:
        source: a path or an open binary file.
        name: what messages call the picture; the path if not given.

    Raises:
        DataError: no such file, not a picture, truncated, damaged, or too many pixels for Pillow's guard against
            decompression bombs.
    """
    shown = name or str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=FORMATS) as image:
                return _pixels(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{Image.MAX_IMAGE_PIXELS:,}"
        raise DataError(f"{shown} has more than {limit} pixels: cut it into smaller pictures or remove it") from None
    except UnidentifiedImageError:
        raise DataError(f"{shown} is not a picture ({', '.join(FORMATS)} are read): replace or remove it") from None
    except Exception as error:  # Pillow's decoders raise nearly every built-in exception on a damaged file
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{shown} cannot be read ({reason}): replace or remove it") from None


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode == "F" or image.mode.startswith("I"):
        return np.repeat(_high_bytes(np.asarray(image))[:, :, None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _high_bytes(grey: np.ndarray) -> np.ndarray:
    if grey.dtype.kind == "f" or grey.min() < 0 or grey.max() > 65535:
        raise ValueError("its values are no 8-bit or 16-bit numbers")
    return (grey >> 8).astype(np.uint8)


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Writes 8-bit RGB of shape (height, width, 3) as PNG, which appears only when it is complete."""
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "PNG")
    write_atomically(path, encoded.getvalue())


def list_pictures(folder: Path) -> list[Path]:
    """The picture files directly in `folder`, in natural order of their names ("2.png" before "10.png").

    Hidden files are left out (macOS leaves "._1.png" beside "1.png" in archives).

    Raises:
        DataError: `folder` is missing or cannot be read.
    """
    try:
        files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder} cannot be read as a folder of pictures: {error.strerror}") from None
    return sorted(files, key=natural_order)


def natural_order(path: Path) -> tuple[list[str | int], str]:
    """Sorting key in which the numbers within a name count as numbers."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return [int(part) if part.isdecimal() else part for part in parts], path.name
