"""Scores derained pictures against their clean ones, as they lie in their files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from derain.data.pairs import folder_pairs
from derain.data.pictures import read_picture
from derain.evaluation.quality import PROTOCOLS, Picture, Quality, mean_quality, measure
from derain.types import DataError, DerainError


class Candidate(NamedTuple):
    """The files of one picture; `rainy` is what the network was given, if that is to be scored too."""

    name: str
    derained: Path
    clean: Path
    rainy: Path | None


@dataclass
class Scores:
    """The qualities by picture: of the derained ones, of the rainy ones (doing nothing), and why some have none."""

    derained: dict[str, Quality] = field(default_factory=dict)
    rainy: dict[str, Quality] = field(default_factory=dict)
    failed: dict[str, DerainError] = field(default_factory=dict)


def candidates(clean: Path, derained: Path, rainy: Path | None) -> list[Candidate]:
    """Finds the clean (and rainy) counterpart of each picture in the folder `derained`; see `folder_pairs`.

    That folder alone says which pictures are scored: others in `clean` and `rainy` are left out.
    Raises DataError where a derained picture has no counterpart, naming it.
    """
    inputs: dict[str, Path] = {}
    if rainy is not None:
        inputs = {pair.name: pair.rainy for pair in folder_pairs(rainy, clean, spare_clean=True)}
    pictures = []
    for pair in folder_pairs(derained, clean, spare_clean=True):
        if rainy is not None and pair.name not in inputs:
            raise DataError(f"{pair.rainy} has no rainy picture of its name in {rainy}: add or remove one")
        pictures.append(Candidate(pair.name, pair.rainy, pair.clean, inputs.get(pair.name)))
    return pictures


def score_files(pictures: Iterable[Candidate], protocol: str) -> Scores:
    """Measures each picture under a protocol of `PROTOCOLS`.

    A picture that cannot be read or compared is in `failed`, with an error that names the file, and does not keep the
    others from being scored.
    """
    scores = Scores()
    for picture in pictures:
        try:
            clean = read_picture(picture.clean)
            derained = _measure_file(picture.derained, clean, protocol)
            if picture.rainy is not None:
                scores.rainy[picture.name] = _measure_file(picture.rainy, clean, protocol)
            scores.derained[picture.name] = derained
        except DerainError as error:
            scores.failed[picture.name] = error
    return scores


def _measure_file(path: Path, clean: Picture, protocol: str) -> Quality:
    picture = read_picture(path)
    try:
        return measure(picture, clean, protocol)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def as_json(scores: Scores, protocol: str) -> dict[str, Any]:
    """The scores as JSON holds them; an infinite PSNR (identical pictures) and a mean over nothing are null."""
    pictures = [
        {"name": name, **_numbers(quality), **_input(scores.rainy.get(name))}
        for name, quality in scores.derained.items()
    ]
    return {
        "protocol": {"name": protocol, "description": PROTOCOLS[protocol].description},
        "mean": {**_numbers(_mean(scores.derained)), **_input(_mean(scores.rainy))},
        "pictures": pictures,
        "failed": [{"name": name, "reason": str(error)} for name, error in scores.failed.items()],
    }


def as_csv(scores: Mapping[str, Scores]) -> str:
    """The scores by protocol as CSV: picture, protocol, whether it is the derained or the rainy one, PSNR, SSIM."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["picture", "protocol", "of", "psnr", "ssim"])
    for protocol, of_one in scores.items():
        for which, qualities in (("derained", of_one.derained), ("rainy", of_one.rainy)):
            table.writerows([name, protocol, which, *quality] for name, quality in qualities.items())
    return text.getvalue()


def as_rows(scores: Scores) -> list[list[str]]:
    """Rows of a table (picture, PSNR in dB, SSIM): each picture, their mean, and the mean of doing nothing."""
    rows = [*scores.derained.items(), ("mean", _mean(scores.derained)), ("doing nothing", _mean(scores.rainy))]
    return [[name, f"{quality.psnr:.2f}", f"{quality.ssim:.4f}"] for name, quality in rows if quality]


def _mean(qualities: Mapping[str, Quality]) -> Quality | None:
    return mean_quality(qualities) if qualities else None


def _numbers(quality: Quality | None) -> dict[str, float | None]:
    if quality is None:
        return {"psnr": None, "ssim": None}
    return {"psnr": quality.psnr if math.isfinite(quality.psnr) else None, "ssim": quality.ssim}


def _input(quality: Quality | None) -> dict[str, dict[str, float | None]]:
    return {} if quality is None else {"input": _numbers(quality)}
