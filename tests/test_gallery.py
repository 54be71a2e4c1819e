"""The page of `derain run --report`: what it holds, how large it becomes, and that no name breaks it."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from derain.restore import gallery
from derain.restore.gallery import Gallery
from tests.test_report import HOSTILE, Page


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def embedded(read: Page) -> list[Image.Image]:
    sources = [str(image["src"]).removeprefix("data:image/jpeg;base64,") for image in read.of("img")]
    return [Image.open(io.BytesIO(base64.b64decode(source, validate=True))) for source in sources]


def test_the_page_needs_no_network_and_every_text_is_escaped() -> None:
    pictures = Gallery()
    pictures.add(HOSTILE, noise(20, 30), noise(20, 30, 1), [HOSTILE, "16-bit"])
    pictures.add(HOSTILE, noise(20, 30), noise(20, 30, 1))
    pictures.add_failure(HOSTILE, HOSTILE)
    html = pictures.html(HOSTILE)
    read = Page(html)
    assert read.balanced
    assert html.count("<script>") == 1
    assert read.text.count(HOSTILE) == 7  # title, heading, two pictures, a note, a failure and its reason
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in read.tags}
    assert not re.search(r"url\(|@import|https?:|fetch\(|import\(", "".join(read.code))
    for tag, attributes in read.tags:
        assert tag == "img" or not {"src", "href", "srcset", "action"} & set(attributes), tag
        assert not any(name.startswith("on") for name in attributes)
    identifiers = Counter(attributes["id"] for _, attributes in read.tags if "id" in attributes)
    assert set(identifiers.values()) == {1}
    sliders = [of for of in read.of("div") if of.get("class") == "slider"]
    assert [(of["data-over"], of["data-under"]) for of in sliders] == [
        (f"picture-{k}-rainy", f"picture-{k}-derained") for k in range(2)
    ]
    assert {of[key] for of in sliders for key in ("data-over", "data-under")} == set(identifiers)


def test_pictures_are_the_ones_given_and_large_ones_are_scaled_down() -> None:
    pictures = Gallery()
    pictures.add("small.png", np.full((20, 30, 3), 200, np.uint8), np.full((20, 30, 3), 100, np.uint8))
    pictures.add("wide.png", noise(100, 4000), noise(100, 4000))
    pictures.add("dot.png", noise(1, 1), noise(1, 1))
    read = Page(pictures.html("Photographs"))
    shown = embedded(read)
    assert [picture.size for picture in shown] == [(30, 20), (30, 20), (1024, 26), (1024, 26), (1, 1), (1, 1)]
    assert [np.asarray(picture).mean() for picture in shown[:2]] == pytest.approx([200, 100], abs=1)
    assert [(image["width"], image["height"]) for image in read.of("img")] == [
        (str(width), str(height)) for width, height in (picture.size for picture in shown)
    ]
    assert "wide.png 4000 × 100" in read.text


def test_later_pictures_become_smaller_and_then_none_so_that_the_page_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gallery, "LONGEST_SIDES", ((20_000, 60), (40_000, 30), (60_000, 15)))
    pictures = Gallery()
    for number in range(100):
        pictures.add(f"{number}.png", noise(100, 100), noise(100, 100))
    html = pictures.html("Photographs")
    read = Page(html)
    sides = [picture.width for picture in embedded(read)]
    assert sides == sorted(sides, reverse=True)
    assert set(sides) == {60, 30, 15}
    assert sum(len(str(image["src"])) for image in read.of("img")) < 65_000
    left_out = read.text.count("Not shown")
    assert left_out == 100 - len(sides) // 2 > 0
    assert all(f"{number}.png 100 × 100" in read.text for number in range(100))


def test_failures_stand_first_and_are_counted() -> None:
    pictures = Gallery()
    assert "0 pictures de-rained." in Page(pictures.html("Photographs")).text
    pictures.add("good.png", noise(9, 9), noise(9, 9))
    assert "1 picture de-rained. Move the line" in Page(pictures.html("Photographs")).text
    pictures.add_failure("bad.png", "bad.png is not a picture")
    text = Page(pictures.html("Photographs")).text
    assert "1 picture de-rained, 1 failed." in text
    assert text.index("bad.png bad.png is not a picture") < text.index("good.png")


def test_the_same_pictures_give_the_same_bytes() -> None:
    def page() -> str:
        pictures = Gallery()
        pictures.add("a.png", noise(9, 9), noise(9, 9))
        return pictures.html("Photographs")

    assert page() == page()
