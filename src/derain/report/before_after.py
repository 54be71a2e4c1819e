"""Before and after: the pictures of each test set inside the page, as data URIs bounded in size."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from derain.evaluation.quality import INPUT, Scores
from derain.evaluation.summary import MAIN
from derain.params import Params
from derain.report.results import Results
from derain.types import DataError
from derain.web.markup import Markup, element
from derain.web.slider import Embedded, as_it_is, as_jpeg, slider
from derain.web.wording import learned_in

LOSSLESS_BUDGET = 6_000_000
"""Bytes that all pictures of a page may take as they are; beyond, they become JPEGs."""
LONGEST_SIDE = 1024
"""Pixels; a longer picture is scaled down, so that a page of large photographs opens too."""
QUALITY = 92


class Caption(NamedTuple):
    """What a picture shows, and its PSNR and SSIM."""

    what: str
    quality: str


def before_and_after(params: Params, results: Results) -> Markup:
    """For the shown pairs of each test set: rainy, after the first task, after the last one, clean, and a slider.

    Raises:
        DataError: a picture is missing or damaged.
    """
    names = _shown(params)
    embedded = embed(
        pictures[name] for test in results.tests.values() for pictures in test.shown.values() for name in names
    )
    sections: list[Markup] = []
    for number, (test, tested) in enumerate(results.tests.items()):
        sections.append(element("h3", test, element("small", learned_in(params, test))))
        sections += [
            _pair(
                f"picture-{number}-{k}",
                pair,
                {name: embedded[files[name]] for name in names},
                _captions(params, tested.scores, pair),
            )
            for k, (pair, files) in enumerate(tested.shown.items())
        ]
    return element(
        "section",
        element("h2", "Before and after"),
        element(
            "p",
            "Move the line, by dragging or with the arrow keys, between the rainy picture and the network’s after the "
            f"last task. Below each picture its PSNR in dB and SSIM ({MAIN}).",
            class_="note",
        ),
        *sections,
    )


def embed(files: Iterable[Path]) -> dict[Path, Embedded]:
    """The pictures of PNG files: as they are where all together are small, else as JPEGs; the same bytes each time.

    Raises:
        DataError: a file is missing or no picture.
    """
    contents = {file: _read(file) for file in files}
    lossless = sum(len(content) for content in contents.values()) * 4 / 3 <= LOSSLESS_BUDGET
    return {file: _embedded(file, content, lossless) for file, content in contents.items()}


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{file} is missing. Run `dvc repro`.") from None


def _embedded(file: Path, content: bytes, lossless: bool) -> Embedded:
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as opened:
            picture = opened.convert("RGB")
    except (OSError, SyntaxError):
        raise DataError(f"{file} is damaged or no PNG. Run `dvc repro`.") from None
    if lossless and max(picture.size) <= LONGEST_SIDE:
        return as_it_is("png", content, picture)
    return as_jpeg(picture, LONGEST_SIDE, QUALITY)


def _shown(params: Params) -> list[str]:
    """What is shown of a pair, by the names of its pictures; one derained picture where there is one task."""
    return list(dict.fromkeys(["rainy", params.tasks[0].name, params.tasks[-1].name, "clean"]))


def _captions(params: Params, scores: Scores, pair: str) -> dict[str, Caption]:
    first, last = params.tasks[0], params.tasks[-1]

    def quality(row: str) -> str:
        psnr, ssim = scores[row][MAIN][pair]
        return f"{psnr:.2f} / {ssim:.3f}"

    return {
        "rainy": Caption("rainy", quality(INPUT)),
        first.name: Caption(f"first task: {first.dataset}", quality(first.name)),
        last.name: Caption(f"last task: {last.dataset}" if len(params.tasks) > 1 else "de-rained", quality(last.name)),
        "clean": Caption("clean", ""),
    }


def _pair(key: str, name: str, pictures: Mapping[str, Embedded], captions: Mapping[str, Caption]) -> Markup:
    figures = [picture.figure(f"{key}-{shows}", name, *captions[shows]) for shows, picture in pictures.items()]
    _, last, _ = list(pictures)[-3:]
    line = slider(name, f"{key}-rainy", f"{key}-{last}")
    tall = pictures["rainy"].height > pictures["rainy"].width
    return element("div", line, element("div", *figures, class_="four"), class_="pair tall" if tall else "pair")
