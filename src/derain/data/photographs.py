"""Clean photographs to draw rain on: those that scikit-image ships, or a folder of the user's own."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import skimage

from derain.data.pictures import list_pictures, read_picture
from derain.types import DataError, Role

WINDOW = (256, 384)
SHIPPED = Path(skimage.__file__).parent / "data"


@dataclass(frozen=True)
class Photograph:
    """A clean photograph, or a piece of one, and what it is for: training or testing.

    `name` is unique in its collection; `load` reads it as uint8 of shape (H, W, 3), RGB, and raises DataError if it is
    damaged.
    """

    name: str
    role: Role
    load: Callable[[], np.ndarray]


def builtin_photographs() -> list[Photograph]:
    """The photographs in scikit-image's wheel, read from where it is installed; nothing is downloaded.

    The split is by photograph, so no scene is on both sides. Training gets 18 pictures of 247 to 256 px on the shorter
    side, 1.22 megapixels in all, of eight photographs; the astronaut and the motorcycle come in pieces at full size and
    whole at half size, and the second picture of the motorcycle's stereo pair is left out. Testing gets five: chelsea,
    coffee, rocket and coins (256x384) and camera (256x256). Raises DataError, when a photograph is loaded, where
    scikit-image was installed without it.
    """
    train = [
        *_pieces("astronaut.png", rows=2, columns=2),
        _half("astronaut.png", "train"),
        *_pieces("motorcycle_left.png", rows=2, columns=3),
        _half("motorcycle_left.png", "train"),
        *(_half(file, "train") for file in ("brick.png", "grass.png", "gravel.png", "moon.png", "ihc.png")),
        _window("hubble_deep_field.jpg", "train"),
    ]
    test = [
        *(_window(file, "test") for file in ("chelsea.png", "coffee.png", "rocket.jpg", "coins.png")),
        _half("camera.png", "test"),
    ]
    return train + test


def folder_photographs(folder: Path, test_share: float = 0.2) -> list[Photograph]:
    """The pictures of a folder, as large as they are.

    A hash of its name puts a photograph into the test split with probability `test_share` (in (0, 1)), so pictures that
    are added later leave the others where they were. Raises DataError for a folder without pictures, for two pictures
    that differ only in their suffix, and where a split would stay empty.
    """
    files = list_pictures(folder)
    if not files:
        raise DataError(
            f"{folder}: no pictures in this folder; put clean photographs there or set data.photos to another"
        )
    name, count = Counter(file.stem for file in files).most_common(1)[0]
    if count > 1:
        raise DataError(f"{folder}: {count} pictures are named {name}; keep one of them or rename the others")
    photographs = [Photograph(file.stem, _side(file.stem, test_share), partial(read_picture, file)) for file in files]
    if len({photograph.role for photograph in photographs}) < 2:
        raise DataError(
            f"{folder}: all {len(files)} pictures fall into the {photographs[0].role} split; "
            "add pictures or change data.test_share"
        )
    return photographs


def _side(name: str, test_share: float) -> Role:
    first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return "test" if first / 2**64 < test_share else "train"


def _half(file: str, role: Role) -> Photograph:
    return Photograph(f"{_stem(file)}-half", role, partial(_read_half, file))


def _window(file: str, role: Role) -> Photograph:
    return Photograph(_stem(file), role, partial(_read_middle, file))


def _pieces(file: str, rows: int, columns: int) -> list[Photograph]:
    places = product(range(rows), range(columns))
    return [
        Photograph(f"{_stem(file)}-{number}", "train", partial(_read_piece, file, (row, rows), (column, columns)))
        for number, (row, column) in enumerate(places, 1)
    ]


def _stem(file: str) -> str:
    return Path(file).stem


def _read(file: str) -> np.ndarray:
    path = SHIPPED / file
    if not path.is_file():
        raise DataError(
            f"{path}: scikit-image came without this photograph; reinstall it from its wheel (0.25 or newer) "
            "or set data.photos to a folder of your own"
        )
    return read_picture(path)


def _read_half(file: str) -> np.ndarray:
    """Half the size: each pixel is the mean of 2 x 2."""
    picture = _read(file)
    height, width = picture.shape[0] // 2, picture.shape[1] // 2
    blocks = picture[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    return np.asarray(np.rint(blocks.mean(axis=(1, 3))), dtype=np.uint8)


def _read_middle(file: str) -> np.ndarray:
    picture = _read(file)
    top, left = ((size - window) // 2 for size, window in zip(picture.shape[:2], WINDOW, strict=True))
    return picture[top : top + WINDOW[0], left : left + WINDOW[1]]


def _read_piece(file: str, row: tuple[int, int], column: tuple[int, int]) -> np.ndarray:
    """The piece (number, of how many) down and across."""
    picture = _read(file)
    return picture[_part(picture.shape[0], *row), _part(picture.shape[1], *column)]


def _part(size: int, number: int, parts: int) -> slice:
    return slice(size * number // parts, size * (number + 1) // parts)
