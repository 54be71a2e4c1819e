"""Decoding pictures, and finding which rainy and which clean files belong together."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from derain.data.pairs import folder_pairs, joined_pairs, read_pairs
from derain.data.pictures import list_pictures, read_picture
from derain.types import DataError


def save(path: Path, picture: np.ndarray | None = None, **options: Any) -> np.ndarray:
    """Writes a picture, by default one that no other path has."""
    if picture is None:
        seed = int.from_bytes(str(path).encode(), "little") % 2**32
        picture = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **options)  # type: ignore[arg-type]
    return picture


def matched(rainy: Path, clean: Path, **options: bool) -> list[tuple[str, str]]:
    return [(pair.rainy.name, pair.clean.name) for pair in folder_pairs(rainy, clean, **options)]


COLOURS = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = COLOURS[..., 0]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_lossless_formats_are_read_as_they_are(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"a.{suffix}", COLOURS, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    picture = read_picture(tmp_path / f"a.{suffix}")
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous
    assert picture.flags.writeable
    assert np.array_equal(picture, COLOURS)


def test_other_modes_become_rgb(tmp_path: Path) -> None:
    grey = np.repeat(GREY[..., None], 3, axis=2)
    alpha = np.dstack((COLOURS, GREY))
    deep = GREY.astype(np.uint16) * 257
    for name, image, expected in (
        ("grey.png", Image.fromarray(GREY), grey),
        ("grey alpha.png", Image.fromarray(np.dstack((GREY, GREY))), grey),
        ("alpha.png", Image.fromarray(alpha), COLOURS),
        ("16 bit.png", Image.fromarray(deep), grey),
        ("16 bit.tif", Image.fromarray(deep), grey),
        ("16 bit.pgm", Image.fromarray(deep.astype(np.int32)), grey),
        (
            "palette.png",
            Image.fromarray(grey).convert("P"),
            np.array(Image.fromarray(grey).convert("P").convert("RGB")),
        ),
        ("bits.png", Image.fromarray(GREY > 127), np.repeat((GREY > 127)[..., None] * np.uint8(255), 3, axis=2)),
    ):
        image.save(tmp_path / name)
        assert np.array_equal(read_picture(tmp_path / name), expected), name


@pytest.mark.parametrize(
    ("orientation", "seen"),
    [
        (1, COLOURS),
        (2, COLOURS[:, ::-1]),
        (3, COLOURS[::-1, ::-1]),
        (4, COLOURS[::-1]),
        (5, COLOURS.transpose(1, 0, 2)),
        (6, np.rot90(COLOURS, -1)),
        (7, COLOURS[::-1, ::-1].transpose(1, 0, 2)),
        (8, np.rot90(COLOURS)),
    ],
)
def test_the_cameras_orientation_is_applied(tmp_path: Path, orientation: int, seen: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "a.png", COLOURS, exif=exif)
    assert np.array_equal(read_picture(tmp_path / "a.png"), seen)


def test_an_open_file_is_read_under_its_name() -> None:
    content = io.BytesIO()
    Image.fromarray(COLOURS).save(content, "PNG")
    assert np.array_equal(read_picture(io.BytesIO(content.getvalue()), "inner.png"), COLOURS)
    with pytest.raises(DataError, match=r"^inner\.png "):
        read_picture(io.BytesIO(content.getvalue()[:60]), "inner.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "ppm"])
def test_truncated_pictures_are_refused(tmp_path: Path, suffix: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    save(tmp_path / f"a.{suffix}", picture)
    content = (tmp_path / f"a.{suffix}").read_bytes()
    whole = read_picture(tmp_path / f"a.{suffix}")
    cut = tmp_path / f"cut.{suffix}"
    for end in range(0, len(content), len(content) // 50):
        cut.write_bytes(content[:end])
        message = refusal(cut)
        if message is None:  # the end may hold no pixels
            assert end > len(content) * 0.95
            assert np.array_equal(read_picture(cut), whole)
        else:
            assert message.startswith(str(cut))
            assert "replace or remove it" in message


def refusal(path: Path) -> str | None:
    try:
        read_picture(path)
    except DataError as error:
        return str(error)
    return None


def test_what_is_no_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "float.tif")
    for name, message in (
        ("text.png", "is not a picture"),
        ("empty.png", "is not a picture"),
        ("program.png", "is not a picture"),
        ("folder.png", "Is a directory"),
        ("missing.png", "No such file"),
        ("float.tif", "no 8-bit or 16-bit numbers"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            read_picture(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    save(tmp_path / "bomb.png", COLOURS)
    for limit in (34, 17):  # Pillow warns above its limit and raises above twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=rf"bomb\.png has more than {limit} pixels"):
            read_picture(tmp_path / "bomb.png")


def test_a_folder_is_listed_in_natural_order(tmp_path: Path) -> None:
    for name in ("10.png", "2.JPG", "1.tiff", "b1.webp", "a12.png", "a2.png", "._3.png", "4.txt", "Thumbs.db"):
        (tmp_path / name).touch()
    assert [path.name for path in list_pictures(tmp_path)] == [
        "1.tiff", "2.JPG", "10.png", "a2.png", "a12.png", "b1.webp"
    ]  # fmt: skip
    for wrong in (tmp_path / "missing", tmp_path / "1.tiff"):
        with pytest.raises(DataError, match="cannot be read as a folder of pictures"):
            list_pictures(wrong)


LAYOUTS: dict[str, list[tuple[str, str]]] = {
    "same names": [("a.png", "a.png"), ("b.png", "b.png")],
    "other suffix": [("1.jpg", "1.png"), ("2.JPEG", "2.png")],
    "Rain100H train": [
        ("rain-1.png", "norain-1.png"),
        ("rain-2.png", "norain-2.png"),
        ("rain-10.png", "norain-10.png"),
    ],
    "Rain100H test": [("rain-001.png", "norain-001.png"), ("rain-100.png", "norain-100.png")],
    "no hyphen": [("rain1.png", "norain1.png"), ("rain12.png", "norain12.png")],
    "Rain100H, changed": [("norain-1x2.png", "norain-1.png"), ("norain-12x2.png", "norain-12.png")],
    "Rain100H, changed, same names": [("norain-1.png", "norain-1.png"), ("norain-2.png", "norain-2.png")],
    "Rain14000": [(f"{n}_{rain}.jpg", f"{n}.jpg") for n in (1, 2, 11) for rain in range(1, 15)],
    "SPA-Data": [("000.png", "000gt.png"), ("001.png", "001gt.png"), ("999.png", "999gt.png")],
    "Rain12": [("001_in.png", "001_GT.png"), ("002_in.png", "002_GT.png")],
    "suffixes": [("x_rain.png", "x_clean.png"), ("y_rain.png", "y_clean.png")],
    "long suffixes": [("x_rainy.png", "x_no_rain.png"), ("y-rainy.png", "y-ground_truth.png")],
    "suffix of one": [("x.png", "x_clean.png"), ("y.png", "y_clean.png")],
    "suffix of the other": [("x_rain.png", "x.png"), ("y_rain.png", "y.png")],
    "misleading": [
        ("rain_forest.png", "rain_forest.png"),
        ("clean_street.png", "clean_street.png"),
        ("a.png", "a.png"),
    ],
    "indoor": [("indoor1.png", "indoor1.png"), ("rainbow.png", "rainbow.png"), ("gtr.png", "gtr.png")],
    "numbered": [("a_1.png", "a_1.png"), ("a_2.png", "a_2.png")],
    "frames": [("a_1.png", "a_1_clean.png"), ("a_2.png", "a_2_clean.png")],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_folders(tmp_path: Path, layout: str) -> None:
    for rainy, clean in LAYOUTS[layout]:
        (tmp_path / "rain").mkdir(exist_ok=True)
        (tmp_path / "norain").mkdir(exist_ok=True)
        (tmp_path / "rain" / rainy).touch()
        (tmp_path / "norain" / clean).touch()
    assert sorted(matched(tmp_path / "rain", tmp_path / "norain")) == sorted(LAYOUTS[layout])


@pytest.mark.parametrize(
    "layout",
    ["Rain100H train", "no hyphen", "Rain14000", "Rain12", "suffixes", "long suffixes", "suffix of one",
     "suffix of the other"],
)  # fmt: skip
def test_one_folder(tmp_path: Path, layout: str) -> None:
    for name in {name for pair in LAYOUTS[layout] for name in pair}:
        (tmp_path / name).touch()
    assert sorted(matched(tmp_path, tmp_path / ".")) == sorted(LAYOUTS[layout])


def test_pairs_come_in_natural_order_and_are_named_by_the_rainy_picture(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        save(tmp_path / f"norain-{number}.png")
        save(tmp_path / f"rain-{number}.png")
    assert [pair.name for pair in folder_pairs(tmp_path, tmp_path)] == ["rain-1", "rain-9", "rain-10"]


def test_streaks_and_regions_are_passed_over(tmp_path: Path) -> None:
    """As in RainTrainL."""
    for name in ("rain-1", "norain-1", "rainstreak-1", "rainregion-1"):
        (tmp_path / f"{name}.png").touch()
    assert matched(tmp_path, tmp_path) == [("rain-1.png", "norain-1.png")]


def test_clean_pictures_above_the_rainy_ones(tmp_path: Path) -> None:
    """As in PReNet's Rain100H for testing, which holds the rainy pictures twice."""
    for name in ("rainy/rain-001.png", "rainy/rain-002.png", "norain-001.png", "norain-002.png", "rain-001.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert matched(tmp_path / "rainy", tmp_path) == [
        ("rain-001.png", "norain-001.png"), ("rain-002.png", "norain-002.png")
    ]  # fmt: skip


def test_unpaired_pictures_are_named_and_counted(tmp_path: Path) -> None:
    rainy, clean = tmp_path / "rain", tmp_path / "norain"
    for number in range(1, 9):
        (rainy / f"{number}.png").parent.mkdir(exist_ok=True)
        (rainy / f"{number}.png").touch()
        (clean / f"{number + 4}.png").parent.mkdir(exist_ok=True)
        (clean / f"{number + 4}.png").touch()
    with pytest.raises(DataError) as caught:
        folder_pairs(rainy, clean)
    assert str(caught.value) == (
        f"4 rainy pictures in {rainy} have no clean one in {clean} (1.png, 2.png, 3.png, ...); "
        f"4 clean pictures in {clean} have no rainy one in {rainy} (9.png, 10.png, 11.png, ...): "
        "add their counterparts or remove them"
    )
    for number in range(1, 5):
        (rainy / f"{number}.png").unlink()
    with pytest.raises(DataError, match="4 clean pictures"):
        folder_pairs(rainy, clean)
    assert len(matched(rainy, clean, spare_clean=True)) == 4


def test_what_cannot_be_told_apart_is_refused(tmp_path: Path) -> None:
    for name in ("rain/1.png", "rain/1.jpg", "clean/1.png", "twice/1.png", "twice/1.jpg", "one/1.png", "plain/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    for rainy, clean, message in (
        ("rain", "clean", "answer to one name: remove one of them"),
        ("one", "twice", "answer to one name: remove one of them"),
        ("plain", "plain", "holds no rainy pictures"),
        ("empty", "clean", "holds no rainy pictures"),
        ("one", "empty", r"1 rainy pictures in .* \(1\.png\)"),
        ("one", "missing", "cannot be read as a folder"),
    ):
        with pytest.raises(DataError, match=message):
            folder_pairs(tmp_path / rainy, tmp_path / clean)


def test_pairs_are_read_from_their_files(tmp_path: Path) -> None:
    rainy = [save(tmp_path / f"rain/{number}_{rain}.png") for number in (1, 2) for rain in (1, 2)]
    clean = [save(tmp_path / f"clean/{number}.png") for number in (1, 2)]
    pairs = read_pairs(folder_pairs(tmp_path / "rain", tmp_path / "clean"))
    assert len(pairs) == 4
    for _ in range(2):  # it can be gone through again
        for pair, name, rainy_picture, clean_picture in zip(
            pairs, ("1_1", "1_2", "2_1", "2_2"), rainy, np.repeat(clean, 2, axis=0), strict=True
        ):
            assert pair.name == name
            assert np.array_equal(pair.rainy, rainy_picture)
            assert np.array_equal(pair.clean, clean_picture)


def test_pictures_of_different_size(tmp_path: Path) -> None:
    save(tmp_path / "rain/1.png", np.zeros((4, 5, 3), np.uint8))
    save(tmp_path / "clean/1.png", np.zeros((5, 4, 3), np.uint8))
    with pytest.raises(DataError) as caught:
        list(read_pairs(folder_pairs(tmp_path / "rain", tmp_path / "clean")))
    assert str(caught.value).startswith(
        f"{tmp_path}/rain/1.png is 5x4, its clean picture {tmp_path}/clean/1.png is 4x5: both must have one size"
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_joined_pictures(tmp_path: Path, side: str) -> None:
    left, right = (np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8) for seed in (0, 1))
    save(tmp_path / "1.png", np.hstack((left, right)))
    pairs = joined_pairs(tmp_path, "left" if side == "left" else "right")
    assert len(pairs) == 1
    (pair,) = pairs
    assert pair.name == "1"
    assert np.array_equal(pair.rainy, left if side == "left" else right)
    assert np.array_equal(pair.clean, right if side == "left" else left)


def test_joined_pictures_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no pictures"):
        joined_pairs(tmp_path, "left")
    save(tmp_path / "1.png", np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(DataError, match=r"1\.png is 5x4: a rainy and a clean half side by side have an even width"):
        list(joined_pairs(tmp_path, "left"))
    (tmp_path / "1.jpg").touch()
    with pytest.raises(DataError, match="answer to one name"):
        joined_pairs(tmp_path, "left")
