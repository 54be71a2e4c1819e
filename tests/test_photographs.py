"""The clean photographs: the built-in ones and a folder of the user's own."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain.data import photographs as module
from derain.data.photographs import Photograph, builtin_photographs, folder_photographs
from derain.types import DataError


def save(folder: Path, *names: str) -> None:
    for name in names:
        Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(folder / name)


def sides(photographs: list[Photograph]) -> dict[str, str]:
    return {photograph.name: photograph.role for photograph in photographs}


def sources(split: str) -> set[str]:
    """The files that a split's photographs are read from."""
    loads = [photograph.load for photograph in builtin_photographs() if photograph.role == split]
    return {load.args[0] for load in loads if isinstance(load, partial)}


class TestBuiltin:
    def test_no_photograph_is_in_both_splits(self) -> None:
        assert not sources("train") & sources("test")

    def test_no_scene_is_in_both_splits(self) -> None:
        """The two motorcycle pictures are one scene, seen by two cameras."""
        assert len({file for split in ("train", "test") for file in sources(split) if "motorcycle" in file}) == 1

    def test_no_piece_shows_what_a_test_picture_shows(self) -> None:
        """By the pixels, not by the names: no 16 x 16 field of a test picture is found in a training picture."""
        train, test = (
            [photograph.load() for photograph in builtin_photographs() if photograph.role == split]
            for split in ("train", "test")
        )
        known = {
            field.tobytes()
            for picture in test
            for field in (picture[y : y + 16, x : x + 16] for y in range(0, 240, 16) for x in range(0, 240, 16))
            if field.std() > 5
        }
        assert len(known) > 500
        firsts = {field[:48] for field in known}
        for picture in train:
            rows = np.lib.stride_tricks.sliding_window_view(picture, (16, 3), axis=(1, 2))
            assert not firsts & {row.tobytes() for row in np.ascontiguousarray(rows).reshape(-1, 48)}

    def test_sizes(self) -> None:
        """Room for the paper's patch of 100 px; test pictures below 384 px, where MATLAB's SSIM starts to shrink."""
        pixels = 0
        for photograph in builtin_photographs():
            picture = photograph.load()
            assert picture.dtype == np.uint8
            assert picture.ndim == 3
            assert picture.shape[2] == 3
            short = min(picture.shape[:2])
            if photograph.role == "test":
                assert 256 <= short < 384
            else:
                assert short >= 200
                pixels += picture.shape[0] * picture.shape[1]
        assert pixels > 1.2e6

    def test_names_are_unique_and_repeatable(self) -> None:
        names = [photograph.name for photograph in builtin_photographs()]
        assert len(set(names)) == len(names)
        assert names == [photograph.name for photograph in builtin_photographs()]

    def test_four_to_six_test_pictures_mostly_in_colour(self) -> None:
        test = [photograph.load() for photograph in builtin_photographs() if photograph.role == "test"]
        assert 4 <= len(test) <= 6
        assert sum(np.ptp(picture.astype(int), axis=2).mean() > 5 for picture in test) >= 3

    def test_pieces_make_up_the_whole(self) -> None:
        pieces = {p.name: p.load() for p in builtin_photographs() if p.name.startswith("motorcycle_left-")}
        rows = [np.hstack([pieces[f"motorcycle_left-{number}"] for number in row]) for row in ((1, 2, 3), (4, 5, 6))]
        with Image.open(module.SHIPPED / "motorcycle_left.png") as whole:
            assert np.array_equal(np.vstack(rows), np.asarray(whole.convert("RGB")))

    def test_half_size_is_the_mean_of_four_pixels(self) -> None:
        half = next(p for p in builtin_photographs() if p.name == "motorcycle_left-half").load()
        with Image.open(module.SHIPPED / "motorcycle_left.png") as whole:
            full = np.asarray(whole.convert("RGB")).astype(float)
        assert half.shape == (250, 370, 3)
        np.testing.assert_allclose(half[100, 200], full[200:202, 400:402].mean(axis=(0, 1)), atol=0.5)
        np.testing.assert_allclose(half[249, 369], full[498:500, 738:740].mean(axis=(0, 1)), atol=0.5)

    def test_nothing_is_downloaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("the network was asked for")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        for photograph in builtin_photographs():
            photograph.load()

    def test_a_scikit_image_without_pictures(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "SHIPPED", tmp_path)
        with pytest.raises(DataError, match=r"astronaut\.png: scikit-image came without.*data\.photos"):
            builtin_photographs()[0].load()


class TestFolder:
    def test_both_splits_in_about_the_share(self, tmp_path: Path) -> None:
        save(tmp_path, *(f"{number:03}.png" for number in range(200)))
        split = list(sides(folder_photographs(tmp_path, 0.25)).values())
        assert 0.15 < split.count("test") / len(split) < 0.35

    def test_the_split_is_stable_when_pictures_are_added(self, tmp_path: Path) -> None:
        save(tmp_path, *(f"{number}.png" for number in range(30)))
        before = sides(folder_photographs(tmp_path))
        save(tmp_path, *(f"new{number}.jpg" for number in range(30)))
        after = sides(folder_photographs(tmp_path))
        assert after.items() > before.items()

    def test_a_larger_share_only_moves_pictures_to_the_test_split(self, tmp_path: Path) -> None:
        save(tmp_path, *(f"{number}.png" for number in range(60)))
        small, large = (sides(folder_photographs(tmp_path, share)) for share in (0.2, 0.6))
        assert all(large[name] == "test" for name, side in small.items() if side == "test")

    def test_photographs_are_the_files(self, tmp_path: Path) -> None:
        save(tmp_path, *(f"{number}.png" for number in range(20)))
        Image.fromarray(np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)).save(tmp_path / "odd.png")
        read = {photograph.name: photograph for photograph in folder_photographs(tmp_path)}
        assert set(read) == {*map(str, range(20)), "odd"}
        assert np.array_equal(read["odd"].load(), np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3))

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=f"{tmp_path.name}: no pictures in this folder"):
            folder_photographs(tmp_path)

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="nowhere"):
            folder_photographs(tmp_path / "nowhere")

    def test_too_few_pictures_for_both_splits(self, tmp_path: Path) -> None:
        save(tmp_path, "one.png")
        with pytest.raises(DataError, match=r"all 1 pictures fall into the (train|test) split; .*data\.test_share"):
            folder_photographs(tmp_path)

    def test_two_pictures_of_one_name(self, tmp_path: Path) -> None:
        save(tmp_path, "a.png", "a.jpg", "b.png")
        with pytest.raises(DataError, match="2 pictures are named a"):
            folder_photographs(tmp_path)
