"""A user's own pictures: which are meant, what is read, what comes out, how it is scored."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from derain.data.pictures import read_picture
from derain.evaluation.quality import PROTOCOLS, measure
from derain.hardware import Hardware
from derain.restore.files import Job, plan, write_png
from derain.restore.run import derain_files, derain_picture
from derain.restore.score import Candidate, as_json, as_rows, candidates, score_files
from derain.types import DataError, NumericError, ParamsError, Restored

CPU = Hardware(torch.device("cpu"), "fp32")


class Darkens(nn.Module):
    """Stands for a network: subtracts a constant, keeps what it was given."""

    def __init__(self, amount: float = 0.0) -> None:
        super().__init__()
        self.amount = amount
        self.given: list[Tensor] = []

    def forward(self, rainy: Tensor) -> Restored:
        self.given.append(rainy)
        return Restored(rainy - self.amount)


class Fails(nn.Module):
    """Stands for a network that raises."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, rainy: Tensor) -> Restored:
        raise self.error


def picture(height: int = 24, width: int = 31, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture() if pixels is None else pixels).save(path, **options)
    return path


class TestPlan:
    def test_folders_and_pictures_become_one_job_each_in_order(self, tmp_path: Path) -> None:
        one, two = save(tmp_path / "in/b.jpg"), save(tmp_path / "in/a.png")
        single = save(tmp_path / "c.jpeg")
        (tmp_path / "in/notes.txt").write_text("no picture")
        out = tmp_path / "out"
        assert plan([single, tmp_path / "in"], out) == [
            Job(single, out / "c.png"),
            Job(two, out / "a.png"),
            Job(one, out / "b.png"),
        ]
        assert not out.exists()

    def test_a_picture_named_twice_is_one_job(self, tmp_path: Path) -> None:
        path = save(tmp_path / "in/a.png")
        roundabout = tmp_path / "in/../in/a.png"
        assert plan([path, path.parent, roundabout], tmp_path / "out") == [Job(path, tmp_path / "out/a.png")]

    def test_two_pictures_for_one_output_are_both_named(self, tmp_path: Path) -> None:
        first, second = save(tmp_path / "a.png"), save(tmp_path / "a.jpg")
        with pytest.raises(ParamsError) as raised:
            plan([first, second], tmp_path / "out")
        assert str(first) in str(raised.value)
        assert str(second) in str(raised.value)

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


class TestDeraining:
    def test_a_network_that_changes_nothing_changes_no_grey_level(self) -> None:
        levels = np.arange(256, dtype=np.uint8)
        rainy = np.stack([levels, levels[::-1], np.roll(levels, 7)], axis=-1).reshape(16, 16, 3)
        assert np.array_equal(derain_picture(rainy, Darkens(), CPU), rainy)

    def test_the_network_sees_rgb_in_unit_range_and_its_answer_is_rounded_to_the_nearest(self) -> None:
        network = Darkens(0.6 / 255)
        rainy = picture(5, 7)
        derained = derain_picture(rainy, network, CPU)
        (given,) = network.given
        assert given.shape == (1, 3, 5, 7)
        assert given.dtype == torch.float32
        assert given[0].permute(1, 2, 0).numpy() == pytest.approx(rainy / 255)
        # 0.6 grey levels less is one level less to the nearest, and black stays black.
        assert np.array_equal(derained, np.maximum(rainy.astype(int) - 1, 0))
        assert derained.dtype == np.uint8

    def test_a_value_that_is_not_finite_is_an_error(self) -> None:
        with pytest.raises(NumericError, match="not finite"):
            derain_picture(picture(), Darkens(math.nan), CPU)

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory"),
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
            MemoryError(),
        ],
    )
    def test_too_large_a_picture_says_so(self, error: Exception) -> None:
        with pytest.raises(DataError, match="31x24 pixels do not fit"):
            derain_picture(picture(), Fails(error), CPU)

    def test_a_fault_of_the_program_is_not_hidden(self) -> None:
        with pytest.raises(RuntimeError, match="size mismatch"):
            derain_picture(picture(), Fails(RuntimeError("size mismatch")), CPU)

    def test_a_damaged_picture_is_named_and_the_others_are_done(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png")
        whole = save(tmp_path / "in/b.jpg").read_bytes()
        (tmp_path / "in/b.jpg").write_bytes(whole[: len(whole) // 2])
        save(tmp_path / "in/c.png", picture(seed=1))
        out = tmp_path / "out"
        (failure,) = derain_files(plan([tmp_path / "in"], out), Darkens(), CPU)
        assert "b.jpg" in str(failure)
        assert sorted(path.name for path in out.iterdir()) == ["a.png", "c.png"]
        assert np.array_equal(read_picture(out / "c.png"), picture(seed=1))

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_the_orientation_that_a_camera_wrote_is_applied(self, tmp_path: Path, orientation: int) -> None:
        stored = picture(20, 30)
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = save(tmp_path / "a.png", stored, exif=exif)
        # EXIF 2.3, tag 274: which sides of the scene the stored first row and first column are.
        upright = {
            1: stored,
            2: stored[:, ::-1],
            3: stored[::-1, ::-1],
            4: stored[::-1],
            5: stored.transpose(1, 0, 2),
            6: stored[::-1].transpose(1, 0, 2),
            7: stored[::-1, ::-1].transpose(1, 0, 2),
            8: stored[:, ::-1].transpose(1, 0, 2),
        }[orientation]
        assert derain_files([Job(path, tmp_path / "out/a.png")], Darkens(), CPU) == []
        with Image.open(tmp_path / "out/a.png") as derained:
            assert derained.getexif().get(0x0112, 1) == 1
            assert np.array_equal(np.array(derained), upright)

    def test_16_bit_grey_keeps_its_tones(self, tmp_path: Path) -> None:
        levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
        path = save(tmp_path / "a.png", levels * np.uint16(257))
        assert derain_files([Job(path, tmp_path / "out/a.png")], Darkens(), CPU) == []
        assert np.array_equal(read_picture(tmp_path / "out/a.png"), np.stack([levels] * 3, axis=-1))

    def test_a_failure_of_the_network_names_the_picture_too(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png")
        (failure,) = derain_files([Job(path, tmp_path / "out/a.png")], Darkens(math.nan), CPU)
        assert str(path) in str(failure)
        assert not (tmp_path / "out").exists()

    def test_an_output_that_cannot_be_written_is_named_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full_disk(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full_disk)
        with pytest.raises(DataError, match=r"a\.png cannot be written: No space left"):
            write_png(tmp_path / "out/a.png", picture())
        assert list((tmp_path / "out").iterdir()) == []


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
        (found,) = candidates(*folders)
        assert found == Candidate("b", *(folder / "b.png" for folder in (folders[1], folders[0], folders[2])))

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
