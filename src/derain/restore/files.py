"""A user's pictures on disk: which are meant, where each goes, and writing it whole."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from derain.data.pictures import list_pictures
from derain.paths import write_atomically
from derain.types import ParamsError

Picture = NDArray[np.uint8]
"""8-bit RGB, shape (height, width, 3)."""


class Job(NamedTuple):
    """A rainy picture and the file that its derained version goes to."""

    rainy: Path
    derained: Path


def plan(inputs: Sequence[Path], folder: Path) -> list[Job]:
    """One job for each picture named, or lying directly in a folder named; each goes to `folder` as STEM.png.

    A picture that is named twice is one job. Nothing is read or written yet.
    Raises ParamsError where an input does not exist, no picture is found, the output folder is a file, two pictures
    would go to one file, or a picture would be overwritten by its own derained version.
    """
    if folder.exists() and not folder.is_dir():
        raise ParamsError(f"-o {folder} is a file; name a folder")
    jobs: dict[Path, Job] = {}
    for picture in _unique(picture for given in inputs for picture in _pictures_of(given)):
        job = Job(picture, folder / f"{picture.stem}.png")
        if job.derained in jobs:
            first = jobs[job.derained].rainy
            raise ParamsError(f"{first} and {picture} would both become {job.derained}; use an output folder for each")
        if job.derained.exists() and job.derained.samefile(picture):
            raise ParamsError(f"{picture} would be overwritten by its derained version; name another folder with -o")
        jobs[job.derained] = job
    if not jobs:
        raise ParamsError(f"no picture in {', '.join(map(str, inputs))}")
    return list(jobs.values())


def _pictures_of(given: Path) -> list[Path]:
    if given.is_dir():
        return list_pictures(given)
    if not given.exists():
        raise ParamsError(f"{given}: no such file or folder")
    return [given]


def _unique(pictures: Iterable[Path]) -> list[Path]:
    by_file: dict[tuple[Path, str], Path] = {}
    for picture in pictures:
        by_file.setdefault((picture.resolve(), picture.stem), picture)
    return list(by_file.values())


def write_png(path: Path, picture: Picture) -> None:
    """Writes 8-bit RGB of shape (height, width, 3) as PNG, which appears only when it is complete."""
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "PNG")
    write_atomically(path, encoded.getvalue())
