"""A user's own pictures: which are meant, what is read, what comes out, how it is scored."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from derain.data.pictures import SUFFIXES, read_picture
from derain.evaluation.quality import PROTOCOLS, measure
from derain.evaluation.score import Candidate, as_json, as_rows, candidates, score_files
from derain.restore.files import Job, plan
from derain.types import DataError, ParamsError


def picture(height: int = 24, width: int = 31, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture() if pixels is None else pixels).save(path, **options)  # type: ignore[arg-type]
    return path


class TestPlan:
    def test_folders_and_pictures_become_one_job_each_in_order(self, tmp_path: Path) -> None:
        one, two = save(tmp_path / "in/b.jpg"), save(tmp_path / "in/a.png")
        single = save(tmp_path / "c.jpeg")
        (tmp_path / "in/notes.txt").write_text("no picture")
        out = tmp_path / "out"
        assert plan([single, tmp_path / "in"], out) == [
            Job(single, out / "c.jpeg"),
            Job(two, out / "a.png"),
            Job(one, out / "b.jpg"),
        ]
        assert [job.derained.name for job in plan([single, tmp_path / "in"], out, written="JPEG")] == [
            "c.jpeg",
            "a.jpg",
            "b.jpg",
        ]
        assert not out.exists()

    def test_a_folder_is_searched_for_all_that_is_read(self, tmp_path: Path) -> None:
        for suffix in SUFFIXES:
            path = tmp_path / suffix / f"a{suffix}"
            path.parent.mkdir()
            path.touch()
            assert [job.rainy for job in plan([path.parent], tmp_path / "out")] == [path]

    def test_a_picture_named_twice_is_one_job(self, tmp_path: Path) -> None:
        path = save(tmp_path / "in/a.png")
        roundabout = tmp_path / "in/../in/a.png"
        assert plan([path, path.parent, roundabout], tmp_path / "out") == [Job(path, tmp_path / "out/a.png")]

    def test_two_pictures_for_one_output_are_both_named(self, tmp_path: Path) -> None:
        first, second, third = save(tmp_path / "a.png"), save(tmp_path / "a.jpg"), save(tmp_path / "b/a.png")
        assert len(plan([first, second], tmp_path / "out")) == 2, "each keeps its suffix"
        for inputs, written in (([first, second], "PNG"), ([first, third], None)):
            with pytest.raises(ParamsError) as raised:
                plan(inputs, tmp_path / "out", written=written)
            assert all(str(path) in str(raised.value) for path in inputs)
        compared = save(tmp_path / "b/a.compared.jpg")
        with pytest.raises(ParamsError, match=r"a\.compared\.jpg"):
            plan([first, compared], tmp_path / "out", compare=True)

    def test_a_tree_is_kept_and_the_output_folder_is_no_input(self, tmp_path: Path) -> None:
        for name in ("a.png", "x/a.png", "x/y/b.tif", "out/old.png", "x/.hidden.png"):
            save(tmp_path / "in" / name)
        out = tmp_path / "in/out"
        jobs = plan([tmp_path / "in"], out, recursive=True)
        assert [str(job.derained.relative_to(out)) for job in jobs] == ["a.png", "x/a.png", "x/y/b.tif"]
        assert [job.derained.name for job in plan([tmp_path / "in"], out)] == ["a.png"]

    def test_patterns_that_the_shell_left_alone(self, tmp_path: Path) -> None:
        for name in ("a.png", "x/b.png", "x/c.jpg"):
            save(tmp_path / "in" / name)
        jobs = plan([str(tmp_path / "in/**/*.png")], tmp_path / "out")
        assert [job.derained.name for job in jobs] == ["a.png", "b.png"]
        save(tmp_path / "in/[1].png")
        assert [job.rainy.name for job in plan([str(tmp_path / "in/[1].png")], tmp_path / "out")] == ["[1].png"]

    def test_a_picture_is_never_overwritten_by_its_own_derained_version(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png")
        (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
        for folder in (tmp_path, tmp_path / "link"):
            with pytest.raises(ParamsError, match="overwritten"):
                plan([path], folder)

    def test_what_is_not_there_or_empty_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ParamsError, match=r"missing\.png: no such file"):
            plan([tmp_path / "missing.png"], tmp_path / "out")
        (tmp_path / "empty").mkdir()
        with pytest.raises(ParamsError, match=r"no picture in .*empty"):
            plan([tmp_path / "empty"], tmp_path / "out")

    def test_an_output_folder_that_is_a_file_is_refused(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png")
        with pytest.raises(ParamsError, match="is a file"):
            plan([path], save(tmp_path / "b.png"))


class TestScoring:
    @pytest.fixture
    def folders(self, tmp_path: Path) -> tuple[Path, Path, Path]:
        """Clean, derained and rainy folders of two scenes."""
        for seed, name in enumerate(("a", "b")):
            clean = picture(30, 40, seed).astype(int)
            save(tmp_path / f"clean/{name}.png", clean.astype(np.uint8))
            save(tmp_path / f"derained/{name}.png", np.clip(clean + 3, 0, 255).astype(np.uint8))
            save(tmp_path / f"rainy/{name}.png", np.clip(clean + 40, 0, 255).astype(np.uint8))
        return tmp_path / "clean", tmp_path / "derained", tmp_path / "rainy"

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_every_picture_is_measured_against_the_clean_one_of_its_name(
        self, folders: tuple[Path, Path, Path], protocol: str
    ) -> None:
        clean, derained, rainy = folders
        scores = score_files(candidates(clean, derained, rainy), protocol)
        for folder, measured in ((derained, scores.derained), (rainy, scores.rainy)):
            assert measured == {
                name: measure(read_picture(folder / f"{name}.png"), read_picture(clean / f"{name}.png"), protocol)
                for name in ("a", "b")
            }
        content = as_json(scores, protocol)
        assert content["protocol"]["name"] == protocol
        assert content["mean"]["psnr"] == pytest.approx(np.mean([q.psnr for q in scores.derained.values()]))
        assert content["mean"]["input"]["ssim"] == pytest.approx(np.mean([q.ssim for q in scores.rainy.values()]))
        assert [row[0] for row in as_rows(scores)] == ["a", "b", "mean", "doing nothing"]

    def test_without_rainy_pictures_there_is_no_row_for_doing_nothing(self, folders: tuple[Path, Path, Path]) -> None:
        scores = score_files(candidates(*folders[:2], None), "rgb")
        assert [row[0] for row in as_rows(scores)] == ["a", "b", "mean"]
        assert "input" not in as_json(scores, "rgb")["mean"]

    def test_identical_pictures_are_null_in_json_and_inf_in_the_table(
        self, folders: tuple[Path, Path, Path], tmp_path: Path
    ) -> None:
        copied = shutil.copytree(folders[0], tmp_path / "copy")
        scores = score_files(candidates(folders[0], copied, None), "matlab-y")
        assert as_json(scores, "matlab-y")["mean"] == {"psnr": None, "ssim": 1.0}
        assert as_rows(scores)[-1] == ["mean", "inf", "1.0000"]

    def test_a_picture_of_another_size_is_named_and_the_others_are_scored(
        self, folders: tuple[Path, Path, Path]
    ) -> None:
        clean, derained, rainy = folders
        save(derained / "b.png", picture(30, 41))
        scores = score_files(candidates(clean, derained, rainy), "matlab-y")
        assert set(scores.derained) == set(scores.rainy) == {"a"}
        assert str(scores.failed["b"]).startswith(f"{derained / 'b.png'}: ")
        assert "41x30 and 40x30" in str(scores.failed["b"])

    def test_the_derained_folder_says_which_pictures_are_scored(self, folders: tuple[Path, Path, Path]) -> None:
        (folders[1] / "a.png").unlink()
        (candidate,) = candidates(*folders)
        assert candidate == Candidate("b", *(folder / "b.png" for folder in (folders[1], folders[0], folders[2])))

    def test_rainy_and_clean_may_lie_in_one_folder_by_their_names(self, tmp_path: Path) -> None:
        both, derained = tmp_path / "Rain100H", tmp_path / "derained"
        clean, rainy = save(both / "norain-001.png"), save(both / "rain-001.png")
        result = save(derained / "rain-001.png")
        assert candidates(both, derained, both) == [Candidate("rain-001", result, clean, rainy)]

    def test_a_derained_picture_without_a_clean_one_is_named(self, folders: tuple[Path, Path, Path]) -> None:
        save(folders[1] / "stranger.png")
        with pytest.raises(DataError, match=r"stranger\.png"):
            candidates(*folders)

    def test_a_missing_rainy_picture_is_named(self, folders: tuple[Path, Path, Path]) -> None:
        clean, derained, rainy = folders
        (rainy / "b.png").unlink()
        with pytest.raises(DataError, match=r"derained/b\.png has no rainy picture"):
            candidates(clean, derained, rainy)

    def test_when_nothing_can_be_scored_there_is_no_mean(self, folders: tuple[Path, Path, Path]) -> None:
        clean, derained, _ = folders
        for path in derained.iterdir():
            path.write_bytes(b"")
        scores = score_files(candidates(clean, derained, None), "matlab-y")
        assert as_json(scores, "matlab-y")["mean"] == {"psnr": None, "ssim": None}
        assert as_rows(scores) == []
