"""The `derain` command: what it prints, what it writes, how it exits."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from derain.cli import main
from derain.data.pictures import read_picture
from derain.disk import networks
from derain.evaluation.quality import PROTOCOLS
from derain.types import Restored


class Darkens(nn.Module):
    """Stands for a network: ten grey levels less."""

    def forward(self, rainy: Tensor) -> Restored:
        return Restored(rainy - 10 / 255)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name that `networks.load_network` answers with `Darkens`."""
    monkeypatch.setattr(networks, "load_network", lambda path, device: Darkens().to(device).eval())
    return str(tmp_path / "fake.safetensors")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_run_derains_a_folder(photos: Path, tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep/out"
    assert main(["run", str(photos), "-o", str(out), "--weights", weights, "--device", "cpu"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png", "c.png"]
    for name in ("a.png", "b.png", "c.png"):
        expected = np.maximum(read_picture(photos / name).astype(int) - 10, 0)
        assert np.array_equal(read_picture(out / name), expected)
    assert f"3 of 3 pictures derained into {out}" in capsys.readouterr().out


def test_run_with_a_damaged_picture_does_the_others_and_exits_3(
    photos: Path, tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:300])
    assert main(["run", str(photos), "-o", str(tmp_path / "out"), "--weights", weights]) == 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
    printed = capsys.readouterr()
    assert "2 of 3" in printed.out
    assert str(photos / "b.png") in printed.err
    assert "Traceback" not in printed.err


def test_run_again_overwrites_what_it_wrote(photos: Path, tmp_path: Path, weights: str) -> None:
    for _ in range(2):
        assert main(["run", str(photos / "a.png"), "-o", str(tmp_path / "out"), "--weights", weights]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


@pytest.mark.parametrize("inputs", [["missing.png"], ["empty"], ["photos/a.png", "other/a.png"]])
def test_run_with_wrong_inputs_exits_2_and_writes_nothing(
    inputs: list[str], photos: Path, tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("empty", "other"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "other/a.png")
    paths = [str(tmp_path / name) for name in inputs]
    assert main(["run", *paths, "-o", str(tmp_path / "out"), "--weights", weights]) == 2
    assert not (tmp_path / "out").exists()
    message = capsys.readouterr().err
    assert all(path in message for path in paths)
    assert len(message.splitlines()) <= 2


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_run_with_unusable_weights_exits_5(
    name: str, content: bytes | None, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["run", str(photos), "-o", str(tmp_path / "out"), "--weights", str(tmp_path / name)]) == 5
    assert not (tmp_path / "out").exists()
    message = capsys.readouterr().err
    assert name in message
    assert len(message.splitlines()) <= 2


def test_run_uses_the_network_of_the_file(photos: Path, tmp_path: Path) -> None:
    from derain.backbones import prenet

    section = prenet.Params(channels=4, stages=2, blocks=1)
    torch.manual_seed(0)
    network = networks.build_network("prenet", section).eval()
    path = tmp_path / "task0.safetensors"
    networks.save_network(path, network.state_dict(), "prenet", section, {"kind": "network"})
    options = ["--weights", str(path), "--device", "cpu", "--precision", "fp32"]
    assert main(["run", str(photos / "a.png"), "-o", str(tmp_path / "out"), *options]) == 0

    rainy = torch.from_numpy(read_picture(photos / "a.png")).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = (network(rainy).derained[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    difference = read_picture(tmp_path / "out/a.png").astype(int) - expected
    assert np.abs(difference).max() <= 1  # a value half-way between two levels may fall either way
    assert (difference == 0).mean() > 0.99


def test_an_interrupted_run_exits_130_and_keeps_what_is_done(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(Darkens):
        calls = 0

        def forward(self, rainy: Tensor) -> Restored:
            # The network is probed with pictures of other sizes first, for what memory it takes.
            self.calls += rainy.shape[-2:] == (20, 30)
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().forward(rainy)

    monkeypatch.setattr(networks, "load_network", lambda path, device: Interrupted())
    assert main(["run", str(photos), "-o", str(tmp_path / "out"), "--weights", "fake"]) == 130
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["run"],
        ["run", "a.png", "-o", "out"],
        ["run", "a.png", "-o", "out", "--weights", "w", "--device", "gpu"],
        ["run", "a.png", "-o", "out", "--weights", "w", "--device", "cuda:x"],
        ["run", "a.png", "-o", "out", "--weights", "w", "--precision", "fp8"],
        ["score", "--clean", "a"],
        ["score", "--clean", "a", "--derained", "b", "--protocol", "y"],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2


class TestScore:
    @pytest.fixture
    def folders(self, photos: Path, tmp_path: Path) -> list[str]:
        """The arguments that name the clean folder and a derained one, three levels brighter."""
        (tmp_path / "derained").mkdir()
        for path in photos.iterdir():
            brighter = np.clip(read_picture(path).astype(int) + 3, 0, 255).astype(np.uint8)
            Image.fromarray(brighter).save(tmp_path / "derained" / path.name)
        return ["--clean", str(photos), "--derained", str(tmp_path / "derained")]

    def test_the_table_names_the_protocol(self, folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["score", *folders, "--protocol", "rgb"]) == 0
        printed = capsys.readouterr().out
        assert "rgb" in printed
        assert "mean" in printed

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_json_on_standard_output_is_all_there_is(
        self, folders: list[str], protocol: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["score", *folders, "--json", "-", "--protocol", protocol]) == 0
        content = json.loads(capsys.readouterr().out)
        assert content["protocol"] == {"name": protocol, "description": PROTOCOLS[protocol].description}
        assert [entry["name"] for entry in content["pictures"]] == ["a", "b", "c"]
        assert 35 < content["mean"]["psnr"] < 45
        assert content["failed"] == []

    def test_json_in_a_file_is_the_same(
        self, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["score", *folders, "--json", "-"]) == 0
        expected = json.loads(capsys.readouterr().out)
        assert main(["score", *folders, "--json", str(tmp_path / "scores.json")]) == 0
        assert json.loads((tmp_path / "scores.json").read_text()) == expected
        assert "mean" in capsys.readouterr().out

    def test_all_protocols_at_once_are_those_one_by_one(
        self, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table = tmp_path / "scores.csv"
        options = ["--rainy", folders[-1], "--protocol", "all", "--csv", str(table)]
        assert main(["score", *folders, *options, "--json", "-"]) == 0
        entries = json.loads(capsys.readouterr().out)["protocols"]
        with table.open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 2 * 3 * len(PROTOCOLS)
        for entry in entries:
            name = entry["protocol"]["name"]
            assert main(["score", *folders, *options[:2], "--protocol", name, "--json", "-"]) == 0
            assert json.loads(capsys.readouterr().out) == entry
            of_one = [float(row["psnr"]) for row in rows if (row["protocol"], row["of"]) == (name, "derained")]
            assert of_one == [picture["psnr"] for picture in entry["pictures"]]
        assert main(["score", *folders, "--protocol", "all"]) == 0
        printed = capsys.readouterr().out
        assert all(f"{name}: " in printed for name in PROTOCOLS)

    def test_doing_nothing_is_scored_too(
        self, folders: list[str], photos: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rainy = ["--rainy", folders[-1]]
        assert main(["score", *folders, *rainy, "--json", "-"]) == 0
        mean = json.loads(capsys.readouterr().out)["mean"]
        assert mean["input"] == {key: mean[key] for key in ("psnr", "ssim")}

    def test_a_damaged_picture_is_named_and_exits_3(
        self, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "derained/b.png").write_bytes(b"damaged")
        assert main(["score", *folders, "--json", "-"]) == 3
        printed = capsys.readouterr()
        assert [entry["name"] for entry in json.loads(printed.out)["failed"]] == ["b"]
        assert str(tmp_path / "derained/b.png") in printed.err

    def test_identical_pictures_give_valid_json_and_a_warning(
        self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        copied = shutil.copytree(photos, tmp_path / "copy")
        assert main(["score", "--clean", str(photos), "--derained", str(copied), "--json", "-"]) == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out)["mean"] == {"psnr": None, "ssim": 1.0}
        assert "infinite" in printed.err

    def test_a_folder_that_is_not_there_is_named(self, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
        missing = str(photos / "missing")
        assert main(["score", "--clean", str(photos), "--derained", missing]) == 5
        assert missing in capsys.readouterr().err


def test_python_m_derain_help_answers_without_torch() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['derain', '--help']\n"
        "try:\n    runpy.run_module('derain', run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'PIL', 'scipy', 'skimage', 'pydantic'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout
    assert "score" in done.stdout
