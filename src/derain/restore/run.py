"""Takes the rain off pictures, one at a time and whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from derain.data.pictures import read_picture
from derain.evaluation.quality import to_8_bit
from derain.restore.files import Job, Picture, write_png
from derain.types import DataError, DerainError

if TYPE_CHECKING:
    from torch import nn

    from derain.hardware import Hardware


def derain_files(jobs: Iterable[Job], network: nn.Module, hardware: Hardware) -> list[DerainError]:
    """Derains each picture into its file; returns an error naming the file for each that could not be done.

    A picture that fails leaves no file behind and does not keep the others from being done.
    """
    failures: list[DerainError] = []
    for job in jobs:
        try:
            _derain_file(job, network, hardware)
        except DerainError as error:
            failures.append(error)
    return failures


def _derain_file(job: Job, network: nn.Module, hardware: Hardware) -> None:
    rainy = read_picture(job.rainy)
    try:
        derained = derain_picture(rainy, network, hardware)
    except DerainError as error:
        raise DataError(f"{job.rainy}: {error}") from None
    write_png(job.derained, derained)


def derain_picture(rainy: Picture, network: nn.Module, hardware: Hardware) -> Picture:
    """The derained picture, uint8 RGB of the same shape (height, width, 3) as the rainy one.

    The network's estimate is rounded to the nearest grey level, because people look at it; the published numbers come
    from truncated ones (see `derain.evaluation.quality.PROTOCOLS`).
    Raises DataError where the picture does not fit into memory, NumericError where the estimate is not finite.
    """
    # torch takes seconds to import, and `derain --help` does without it.
    from derain.inference import estimate

    return to_8_bit(estimate(network, rainy, hardware), "nearest")
