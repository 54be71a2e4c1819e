"""Packs: what goes in comes out, bit by bit, at any position, and rot is noticed."""

from __future__ import annotations

import contextlib
import json
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from derain.data.pack import Pack, write_pack
from derain.data.pairs import folder_pairs, read_pairs
from derain.data.pictures import list_pictures, read_picture
from derain.types import DataError, Pair

SIZES = [(20, 31), (45, 22), (20, 20), (33, 47)]


def make_pairs(sizes: list[tuple[int, int]] = SIZES, seed: int = 0) -> list[Pair]:
    rng = np.random.default_rng(seed)
    return [
        Pair(f"p{number}", *rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)) for number, size in enumerate(sizes)
    ]


def packed(folder: Path, pairs: list[Pair] | None = None, **options: Any) -> Pack:
    write_pack(folder / "set", "train", make_pairs() if pairs is None else pairs, **options)
    return Pack.open(folder / "set", "train")


def equal(left: Pair, right: Pair) -> bool:
    return (
        left.name == right.name and np.array_equal(left.rainy, right.rainy) and np.array_equal(left.clean, right.clean)
    )


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    pairs = make_pairs()
    pairs[1] = pairs[1]._replace(name="ä 雨, \"'\n")
    pack = packed(tmp_path, pairs, stride=7, description={"kind": "heavy", "numbers": [1, 2.5, None]})
    assert len(pack) == len(pairs)
    assert pack.names == tuple(pair.name for pair in pairs)
    assert pack.stride == 7
    manifest = json.loads((tmp_path / "set/train.json").read_text())
    assert manifest["description"] == {"kind": "heavy", "numbers": [1, 2.5, None]}
    for index, pair in enumerate(pairs):
        assert equal(pack.pair(index), pair)
    for index in (-1, len(pairs)):
        with pytest.raises(IndexError):
            pack.pair(index)


def test_pixels_are_plain_bytes(tmp_path: Path) -> None:
    pairs = make_pairs()
    packed(tmp_path, pairs)
    pixels = b"".join(picture.tobytes() for pair in pairs for picture in (pair.rainy, pair.clean))
    assert (tmp_path / "set/train.pack").read_bytes().startswith(pixels)
    assert {path.name for path in (tmp_path / "set").iterdir()} == {"train.pack", "train.json"}


def test_same_pairs_same_bytes(tmp_path: Path) -> None:
    description = {"b": 1, "a": {"d": 2, "c": 3}}
    write_pack(tmp_path / "one/set", "train", make_pairs(), flip=True, description=description)
    turned = [pair._replace(rainy=np.asfortranarray(pair.rainy)) for pair in make_pairs()]
    backwards = dict(reversed(description.items()))
    write_pack(tmp_path / "two/set", "train", iter(turned), flip=True, description=backwards)
    for name in ("train.pack", "train.json"):
        assert (tmp_path / "one/set" / name).read_bytes() == (tmp_path / "two/set" / name).read_bytes()


def test_equal_pictures_are_stored_once(tmp_path: Path) -> None:
    """Rain14000 has 14 rains of each clean picture."""
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (2, 8, 9, 3), dtype=np.uint8)
    pairs = [Pair(f"{n}_{rain}", rng.integers(0, 256, (8, 9, 3), dtype=np.uint8), clean[n % 2].copy())
             for rain in range(14) for n in range(2)]  # fmt: skip
    pack = packed(tmp_path, pairs)
    manifest = json.loads((tmp_path / "set/train.json").read_text())
    assert manifest["pixels"] == (28 + 2) * 8 * 9 * 3
    for index, pair in enumerate(pairs):
        assert equal(pack.pair(index), pair)


def test_a_mirrored_copy_costs_nothing(tmp_path: Path) -> None:
    """PReNet doubles RainTrainL: each picture, then the same with left and right exchanged."""
    pairs = make_pairs()
    packed(tmp_path / "plain", pairs)
    pack = packed(tmp_path / "flipped", pairs, flip=True)
    sizes = [json.loads((tmp_path / name / "set/train.json").read_text())["pixels"] for name in ("plain", "flipped")]
    assert sizes[0] == sizes[1]
    assert len(pack) == 2 * len(pairs)
    for index, pair in enumerate(pairs):
        assert equal(pack.pair(2 * index), pair)
        mirrored = Pair(f"{pair.name}-flipped", pair.rainy[:, ::-1], pair.clean[:, ::-1])
        assert equal(pack.pair(2 * index + 1), mirrored)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("patch", "stride"), [(20, None), (20, 1), (7, 5), (1, 9), (13, 40)])
def test_grid_and_crops_against_plain_loops(tmp_path: Path, patch: int, stride: int | None, flip: bool) -> None:
    pairs = make_pairs()
    pack = packed(tmp_path, pairs, stride=stride, flip=flip)
    step = stride or patch
    positions, rainy, clean = [], [], []
    for index in range(len(pack)):
        pair = pack.pair(index)
        for top in range(0, pair.rainy.shape[0] - patch + 1, step):
            for left in range(0, pair.rainy.shape[1] - patch + 1, step):
                positions.append((index, top, left))
                rainy.append(pair.rainy[top : top + patch, left : left + patch])
                clean.append(pair.clean[top : top + patch, left : left + patch])
    grid = pack.grid(patch)
    assert np.array_equal(grid, positions)
    crops = pack.crops(grid, patch)
    assert [crop.dtype for crop in crops] == [np.uint8, np.uint8]
    assert np.array_equal(crops[0], rainy)
    assert np.array_equal(crops[1], clean)


def test_the_grid_has_prenets_number_of_patches(tmp_path: Path) -> None:
    """RainTrainH: 15 patches of 100 at stride 80 in 481x321, so 18,810 in 1,254 pictures; RainTrainL: 6,000."""
    pair = Pair("a", np.zeros((321, 481, 3), np.uint8), np.ones((321, 481, 3), np.uint8))
    upright = Pair("b", np.zeros((481, 321, 3), np.uint8), np.ones((481, 321, 3), np.uint8))
    assert len(packed(tmp_path / "h", [pair, upright], stride=80).grid(100)) * 1254 // 2 == 18_810
    assert len(packed(tmp_path / "l", [pair, upright], stride=80, flip=True).grid(100)) * 200 // 2 == 6_000


def test_random_patches(tmp_path: Path) -> None:
    pack = packed(tmp_path, flip=True)
    patch, count = 18, 40_000
    positions = pack.random(np.random.default_rng(3), count, patch)
    assert positions.shape == (count, 3)
    assert np.array_equal(positions, pack.random(np.random.default_rng(3), count, patch))
    assert not np.array_equal(positions, pack.random(np.random.default_rng(4), count, patch))
    for index, (height, width) in enumerate(np.repeat(SIZES, 2, axis=0)):
        mine = positions[positions[:, 0] == index]
        # Every picture equally likely, whatever its size: 5 standard deviations of the binomial distribution.
        assert abs(len(mine) - count / 8) < 5 * np.sqrt(count * 7 / 64)
        places = (height - patch + 1) * (width - patch + 1)
        hits = np.bincount(mine[:, 1] * (width - patch + 1) + mine[:, 2], minlength=places)
        assert hits.size == places
        expected = len(mine) / places
        # Every position equally likely: chi-square with places - 1 degrees, 5 standard deviations.
        assert ((hits - expected) ** 2 / expected).sum() < places - 1 + 5 * np.sqrt(2 * places)
    rainy, clean = pack.crops(positions[:200], patch)
    for (index, top, left), rainy_crop, clean_crop in zip(positions[:200], rainy, clean, strict=True):
        pair = pack.pair(index)
        assert np.array_equal(pair.rainy[top : top + patch, left : left + patch], rainy_crop)
        assert np.array_equal(pair.clean[top : top + patch, left : left + patch], clean_crop)


def test_crops_outside_the_pictures_are_refused(tmp_path: Path) -> None:
    pack = packed(tmp_path)
    height, width = SIZES[0]
    assert pack.crops(np.array([[0, height - 5, width - 5]]), 5)[0].shape == (1, 5, 5, 3)
    assert pack.crops(np.empty((0, 3), int), 5)[0].shape == (0, 5, 5, 3)
    for wrong in ((0, height - 4, 0), (0, 0, width - 4), (0, -1, 0), (0, 0, -1), (-1, 0, 0), (len(SIZES), 0, 0)):
        with pytest.raises(ValueError, match="positions"):
            pack.crops(np.array([wrong]), 5)


def test_a_picture_smaller_than_the_patch(tmp_path: Path) -> None:
    pack = packed(tmp_path)
    pack.check_patch(20)
    rng = np.random.default_rng(0)
    for ask in (pack.check_patch, pack.grid, lambda patch: pack.random(rng, 1, patch)):
        with pytest.raises(DataError) as caught:
            ask(23)
        assert str(caught.value) == (
            f"{tmp_path}/set/train.pack: picture 'p0' (31x20) is smaller than the patch (23x23), as are 2 more: "
            "choose a smaller `train.patch` or remove it from the set"
        )
    with pytest.raises(DataError, match=r"'p1' \(22x45\) is smaller"):
        packed(tmp_path / "one", make_pairs()[1:2]).grid(23)


@pytest.mark.parametrize("name", ["train.pack", "train.json"])
def test_every_flipped_bit_is_noticed(tmp_path: Path, name: str) -> None:
    packed(tmp_path, flip=True, stride=80)
    path = tmp_path / "set" / name
    content = path.read_bytes()
    for bit in np.random.default_rng(0).integers(0, 8 * len(content), 300):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"is damaged: run `dvc repro --force download@set` to make it again"):
            Pack.open(tmp_path / "set", "train")


@pytest.mark.parametrize("name", ["train.pack", "train.json"])
def test_truncation_is_noticed(tmp_path: Path, name: str) -> None:
    packed(tmp_path)
    path = tmp_path / "set" / name
    content = path.read_bytes()
    for end in (0, 1, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(DataError, match="is damaged"):
            Pack.open(tmp_path / "set", "train")
    path.write_bytes(content + b"\n")
    with pytest.raises(DataError, match="is damaged"):
        Pack.open(tmp_path / "set", "train")


def test_an_index_that_points_outside_is_refused_whatever_the_checksum_says(tmp_path: Path) -> None:
    packed(tmp_path)
    path = tmp_path / "set/train.pack"
    manifest = json.loads((tmp_path / "set/train.json").read_text())
    for number in (0, 2, 3, 7):
        damaged = bytearray(path.read_bytes())
        damaged[manifest["pixels"] + 8 * number + 4] ^= 1
        outside = tmp_path / "outside.pack"
        outside.write_bytes(damaged)
        with pytest.raises(DataError, match="is damaged"):
            Pack(outside, manifest)


def test_missing_and_foreign_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"train\.json is missing: run `dvc repro download@set` or `dvc pull`"):
        Pack.open(tmp_path / "set", "train")
    packed(tmp_path)
    (tmp_path / "set/train.pack").rename(tmp_path / "set/test.pack")
    with pytest.raises(DataError, match=r"train\.pack is missing"):
        Pack.open(tmp_path / "set", "train")
    with pytest.raises(DataError, match=r"test\.json is missing"):
        Pack.open(tmp_path / "set", "test")
    monkeypatch.setattr("derain.data.pack.FORMAT", 2)
    packed(tmp_path / "newer")
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"has format 2, this version reads 1: run `dvc repro --force download@set`"):
        Pack.open(tmp_path / "newer/set", "train")


def broken(pairs: list[Pair]) -> Iterator[Pair]:
    yield from pairs
    raise DataError("rain-3.png cannot be read")


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(tmp_path, stride=3)
    before = {path: path.read_bytes() for path in (tmp_path / "set").iterdir()}

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    pairs = make_pairs(seed=1)
    other = pairs[0]._replace(clean=pairs[1].clean)
    for wrong, message in (
        ([], "set: its train set is empty"),
        (broken(pairs), r"rain-3\.png cannot be read"),
        ([other], "pair 'p0': the rainy picture is 31x20, the clean one 22x45: both must have one size"),
        ([pairs[0], pairs[0]], "the name 'p0' stands for two pairs"),
        ([pairs[0]._replace(name="a\0b")], "stands for two pairs"),
    ):
        with pytest.raises(DataError, match=message):
            write_pack(tmp_path / "set", "train", wrong)
        assert {path: path.read_bytes() for path in (tmp_path / "set").iterdir()} == before
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DataError, match=r"train\.pack cannot be written: No space left on device"):
        write_pack(tmp_path / "set", "train", pairs)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in (tmp_path / "set").iterdir()} == before


@pytest.mark.parametrize("step", range(1, 7))
def test_a_kill_between_the_files_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Old or new or missing, but never new pixels under an old description."""

    class KilledError(BaseException): ...

    calls = []  # type: ignore[var-annotated]

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            calls.append(real)
            if len(calls) == step:
                raise KilledError
            return real(*arguments, **options)

        return call

    packed(tmp_path, stride=3)
    old, new = make_pairs(), make_pairs(seed=1)
    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, dying(getattr(Path, name)))
    with contextlib.suppress(KilledError):
        write_pack(tmp_path / "set", "train", new, stride=4)
    monkeypatch.undo()
    try:
        pack = Pack.open(tmp_path / "set", "train")
    except DataError as error:
        missing = str(error)
    else:
        missing = ""
        expected = {3: old, 4: new}[pack.stride or 0]
        assert all(equal(pack.pair(index), pair) for index, pair in enumerate(expected))
    assert not missing or "train.json is missing" in missing


def test_pictures_of_the_wrong_kind_are_a_fault_of_the_caller(tmp_path: Path) -> None:
    for picture in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(ValueError, match="uint8"):
            write_pack(tmp_path, "train", [Pair("a", picture, picture)])
    assert list(tmp_path.iterdir()) == []


def test_pairs_are_not_gathered_in_memory(tmp_path: Path) -> None:
    alive = most = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def stream() -> Iterator[Pair]:
        nonlocal alive, most
        for number in range(50):
            pictures = [np.full((4, 4, 3), number + side, np.uint8) for side in (0, 100)]
            for picture in pictures:
                weakref.finalize(picture, gone)
                alive += 1
            yield Pair(str(number), *pictures)
            most = max(most, alive)

    write_pack(tmp_path / "set", "train", stream(), flip=True)
    assert 2 <= most <= 4


DATA = Path(os.environ.get("DERAIN_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.mark.skipif(not (DATA / "rain100h_dev").is_dir(), reason=f"no rain100h_dev in {DATA} (DERAIN_DATA)")
def test_real_pairs(tmp_path: Path) -> None:
    folder = DATA / "rain100h_dev"
    write_pack(tmp_path / "set", "test", read_pairs(folder_pairs(folder / "rainy", folder / "clean")))
    pack = Pack.open(tmp_path / "set", "test")
    files = list_pictures(folder / "rainy")
    assert pack.names == tuple(path.stem for path in files)
    for index in (0, len(files) - 1):
        assert np.array_equal(pack.pair(index).rainy, read_picture(files[index]))
        assert np.array_equal(pack.pair(index).clean, read_picture(folder / "clean" / files[index].name))
