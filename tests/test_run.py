"""De-raining a batch: order, overlap, failures, and the options of `derain run`."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from derain import cli
from derain.data.pictures import write_png
from derain.disk import networks
from derain.restore import network as restore_network
from derain.restore.files import Job, plan
from derain.restore.formats import decode
from derain.restore.network import Network
from derain.restore.run import derain_files
from derain.types import DataError, NumericError


class Darkens:
    """Stands for a trained network: ten of 255 levels less; keeps what it was given."""

    receptive_radius = 0

    def __init__(self, amount: float = 10 / 255) -> None:
        self.amount = amount
        self.given: list[np.ndarray] = []

    def describe(self) -> dict[str, str | int]:
        return {}

    def __call__(self, batch: np.ndarray, /) -> np.ndarray:
        self.given.append(batch)
        return batch - np.float32(self.amount)


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name under which `derain run` finds `Darkens`."""
    monkeypatch.setattr(restore_network, "load", lambda *_: Network(Darkens()))
    return "fake.safetensors"


def picture(height: int = 24, width: int = 31, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture() if pixels is None else pixels).save(path, **options)
    return path


def darker(pixels: np.ndarray) -> np.ndarray:
    levels: np.ndarray = np.maximum(pixels.astype(int) - 10, 0).astype(np.uint8)
    return levels


def read(path: Path) -> np.ndarray:
    return decode(path.read_bytes()).levels


class TestBatches:
    def test_pictures_come_in_order_each_with_its_own_derained_version(self, tmp_path: Path) -> None:
        for number in range(12):
            save(tmp_path / f"in/{number:02}.png", picture(seed=number))
        outcomes = list(derain_files(plan([tmp_path / "in"], tmp_path / "out"), Network(Darkens())))
        assert [outcome.job.rainy.stem for outcome in outcomes] == [f"{number:02}" for number in range(12)]
        for number in range(12):
            assert np.array_equal(read(tmp_path / f"out/{number:02}.png"), darker(picture(seed=number)))

    def test_a_damaged_picture_is_named_and_the_others_are_done(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png")
        whole = save(tmp_path / "in/b.jpg").read_bytes()
        (tmp_path / "in/b.jpg").write_bytes(whole[: len(whole) // 2])
        save(tmp_path / "in/c.png", picture(seed=1))
        out = tmp_path / "out"
        outcomes = list(derain_files(plan([tmp_path / "in"], out), Network(Darkens())))
        assert [outcome.status for outcome in outcomes] == ["done", "failed", "done"]
        assert str(tmp_path / "in/b.jpg") in str(outcomes[1].error)
        assert sorted(path.name for path in out.iterdir()) == ["a.png", "c.png"]
        assert np.array_equal(read(out / "c.png"), darker(picture(seed=1)))

    def test_a_failure_of_the_network_names_the_picture_too(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png")
        (outcome,) = derain_files([Job(path, tmp_path / "out/a.png")], Network(Darkens(math.nan)))
        assert isinstance(outcome.error, NumericError)
        assert str(path) in str(outcome.error)
        assert not (tmp_path / "out").exists()

    def test_an_output_that_cannot_be_written_is_named_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full_disk(_: int) -> None:
            raise OSError(28, "No space left on device")

        path = save(tmp_path / "a.png")
        monkeypatch.setattr("os.fsync", full_disk)
        (outcome,) = derain_files([Job(path, tmp_path / "out/a.png")], Network(Darkens()))
        assert "No space left" in str(outcome.error)
        with pytest.raises(DataError, match=r"b\.png cannot be written: No space left"):
            write_png(tmp_path / "out/b.png", picture())
        assert list((tmp_path / "out").iterdir()) == []

    def test_no_more_than_a_few_pictures_are_held(self, tmp_path: Path) -> None:
        jobs = [Job(save(tmp_path / f"{number}.png"), tmp_path / f"out/{number}.png") for number in range(20)]
        network = Darkens()
        outcomes = derain_files(jobs, Network(network))
        next(outcomes)
        assert len(network.given) <= 4
        assert len(list(outcomes)) == 19


class TestCommand:
    def run(self, *words: object) -> int:
        return cli.main(["run", *map(str, words)])

    def test_each_keeps_its_name_format_and_place(self, tmp_path: Path, weights: str) -> None:
        for name in ("a.png", "x/b.jpg", "x/y/c.tif", "x/d.webp", "x/e.bmp", "x/y/a.png"):
            save(tmp_path / "in" / name)
        out = tmp_path / "out"
        assert self.run(tmp_path / "in", "-o", out, "--recursive", "--weights", weights) == 0
        written = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
        assert written == ["a.png", "x/b.jpg", "x/d.webp", "x/e.bmp", "x/y/a.png", "x/y/c.tif"]
        for path in out.rglob("*.*"):
            with Image.open(path) as image:
                expected = {".jpg": "JPEG", ".tif": "TIFF"}.get(path.suffix, path.suffix[1:].upper())
                assert image.format == expected

    @pytest.mark.parametrize("written", ["png", "jpeg", "tiff", "webp", "bmp"])
    def test_another_format(self, written: str, tmp_path: Path, weights: str) -> None:
        path = save(tmp_path / "in/a.webp", lossless=True)
        assert self.run(path, "-o", tmp_path / "out", "--format", written, "--weights", weights) == 0
        (output,) = (tmp_path / "out").iterdir()
        with Image.open(output) as image:
            assert image.format == written.upper()
            difference = np.asarray(image.convert("RGB")).astype(int) - darker(picture())
        lossy = written in {"jpeg", "webp"}
        # A format that loses is judged by the mean: noise is the hardest picture for it.
        assert np.abs(difference).mean() < (12 if lossy else 1e-9)

    def test_16_bits_from_8_are_finer_than_8(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(restore_network, "load", lambda *_: Network(Darkens(0.4 / 255)))
        path = save(tmp_path / "a.png", np.maximum(picture(), 1))
        assert self.run(path, "-o", tmp_path / "out", "--bits", "16", "--weights", "w") == 0
        derained = decode((tmp_path / "out/a.png").read_bytes())
        assert derained.bits == 16
        assert np.abs(derained.levels / 257 - (np.maximum(picture(), 1) - 0.4)).max() < 0.01
        assert self.run(tmp_path / "out/a.png", "-o", tmp_path / "again", "--bits", "8", "--weights", "w") == 0
        assert decode((tmp_path / "again/a.png").read_bytes()).bits == 8

    def test_json_report_and_side_by_side(
        self, tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        save(tmp_path / "in/a.png", picture(20, 30))
        (tmp_path / "in/b.png").write_bytes(b"no <picture>")
        Image.fromarray(picture(20, 30)).convert("P").save(tmp_path / "in/c.png")
        out, page = tmp_path / "out", tmp_path / "report.html"
        options = ["--weights", weights, "--compare", "--report", page, "--json", "-"]
        assert self.run(tmp_path / "in", "-o", out, *options) == 3
        captured = capsys.readouterr()
        first, failed, palette = json.loads(captured.out)
        assert (first["status"], first["width"], first["height"], first["bits"]) == ("done", 30, 20, 8)
        assert failed["status"] == "failed"
        assert "not a picture" in failed["reason"]
        assert failed["reason"] in captured.err
        assert palette["notes"] == ["converted from a palette to RGB"]
        with Image.open(out / "a.compared.jpg") as both:
            assert both.size == (60, 20)
        assert "b.png" in page.read_text()
        assert page.read_text().count("data:image/jpeg") >= 4

    def test_skip_existing_and_fail_fast(
        self, tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in "abc":
            save(tmp_path / f"in/{name}.png")
        out = tmp_path / "out"
        assert self.run(tmp_path / "in/a.png", "-o", out, "--weights", weights) == 0
        before = (out / "a.png").stat().st_mtime_ns
        assert self.run(tmp_path / "in", "-o", out, "--weights", weights, "--skip-existing") == 0
        assert (out / "a.png").stat().st_mtime_ns == before
        assert "2 of 3 pictures derained" in capsys.readouterr().out
        (tmp_path / "in/a.png").write_bytes(b"")
        again = tmp_path / "again"
        assert self.run(tmp_path / "in", "-o", again, "--weights", weights, "--fail-fast") == 3
        assert not (again / "a.png").exists()

    def test_quiet_says_nothing_and_verbose_says_each(
        self, tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = save(tmp_path / "a.png")
        assert self.run(path, "-o", tmp_path / "out", "--weights", weights, "-q") == 0
        assert capsys.readouterr().out == ""
        assert self.run(path, "-o", tmp_path / "out", "--weights", weights, "-v") == 0
        assert f"{path}: done in " in capsys.readouterr().out

    @pytest.mark.parametrize(
        "words",
        [
            ["-", "-o", "out"],
            ["-", "a.png", "-o", "-"],
            ["-", "-o", "-", "--compare"],
            ["missing.png", "-o", "out"],
        ],
    )
    def test_wrong_use_exits_2_before_anything_is_loaded(
        self, words: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(restore_network, "load", lambda *_: pytest.fail("loaded"))
        assert self.run(*words, "--weights", "w") == 2

    @pytest.mark.parametrize("words", [["--max-memory", "lots"], ["--tile", "x"], ["--bits", "12"], ["-q", "-v"]])
    def test_a_value_that_is_none_exits_2(self, words: list[str]) -> None:
        with pytest.raises(SystemExit) as raised:
            self.run("a.png", "-o", "out", "--weights", "w", *words)
        assert raised.value.code == 2

    def test_standard_input_to_standard_output(self, tmp_path: Path) -> None:
        from derain.backbones import prenet

        section = prenet.Params(channels=4, stages=1, blocks=1)
        networks.save_network(
            tmp_path / "w.safetensors",
            networks.build_network("prenet", section).state_dict(),
            "prenet",
            section,
            {"kind": "model"},
        )
        command = [sys.executable, "-m", "derain", "run", "-", "-o", "-", "--weights", str(tmp_path / "w.safetensors")]
        encoded = save(tmp_path / "a.webp", lossless=True).read_bytes()
        ran = subprocess.run(command, input=encoded, capture_output=True, check=True, env={**os.environ})
        with Image.open(io.BytesIO(ran.stdout)) as image:
            assert (image.format, image.size) == ("WEBP", (31, 24))
        failed = subprocess.run(command, input=encoded[:-9], capture_output=True, check=False, env={**os.environ})
        assert (failed.returncode, failed.stdout) == (5, b"")
        assert failed.stderr.decode().startswith("error: standard input ")
