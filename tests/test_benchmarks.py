"""The baseline of the benchmarks computes what ours computes; no time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from benchmarks import _measure, importance, training_step
from benchmarks.baseline import published_ssim, published_step
from derain.compute.batch import Batch
from derain.compute.hardware import Hardware
from derain.objectives.negative_ssim import negative_ssim
from derain.training import crops as training_crops
from derain.training.importance import mean_absolute_gradient
from tests.conftest import NEGATIVE_SSIM

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def batch() -> Batch:
    return training_step.crops(2, 40)


def test_the_published_network_and_loss_are_ours(batch: Batch) -> None:
    ours, published = training_step.networks()
    torch.testing.assert_close(ours(batch.rainy).derained, published(batch.rainy), atol=1e-5, rtol=1e-4)
    loss = -published_ssim(batch.rainy, batch.clean)
    torch.testing.assert_close(negative_ssim(batch.rainy, batch.clean), loss, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-4), ("bf16", 0.05)])
def test_the_gradients_are_near(batch: Batch, precision: str, largest: float) -> None:
    facts = training_step.gradients(batch, Hardware(torch.device("cpu"), precision))
    assert float(facts["gradient, relative difference"]) < largest
    assert float(facts["gradient, cosine"]) > 0.999


def test_the_published_step_is_adam_on_the_negative_ssim(batch: Batch) -> None:
    _, published = training_step.networks()
    before = {name: weight.detach().clone() for name, weight in published.named_parameters()}
    optimizer = torch.optim.Adam(published.parameters(), lr=1e-3)
    assert published_step(published, batch.rainy, batch.clean, optimizer) == pytest.approx(
        -float(published_ssim(training_step.networks()[1](batch.rainy), batch.clean)), abs=1e-6
    )
    moved = [float((weight.detach() - before[name]).abs().max()) for name, weight in published.named_parameters()]
    assert max(moved) == pytest.approx(1e-3, rel=1e-2), "Adam's first step is the learning rate"


def test_the_plain_importance_is_ours(packs: dict, hardware: Hardware) -> None:
    samples = training_crops.for_importance(packs["heavy"], 16, 0, 0, 3, 1, hardware.device)
    ours, published = training_step.networks()
    plain = importance.plain_loop(published, list(samples))
    for name, value in mean_absolute_gradient(ours, samples, hardware, NEGATIVE_SSIM).items():
        assert (value - plain[name]).norm() <= 1e-4 * plain[name].norm()


def test_the_convolutions_alone_are_those_of_the_network(batch: Batch) -> None:
    """As many multiplications as a forward pass has: 10.1 G a patch of 100x100, less the first zero hidden state."""
    from torch.utils.flop_counter import FlopCounterMode

    ours, _ = training_step.networks()
    with FlopCounterMode(display=False) as counted:
        F.mse_loss(ours(batch.rainy).derained, batch.clean).backward()
    with FlopCounterMode(display=False) as alone:
        training_step.convolutions(2, 40, Hardware(torch.device("cpu"), "fp32"))()
    assert alone.get_total_flops() == pytest.approx(counted.get_total_flops(), rel=0.01)


def test_ratios_are_of_rounds() -> None:
    row = _measure.compared("work", "theirs", {"theirs": [4.0, 6.0, 2.0], "mine": [2.0, 2.0, 2.0]}, "mine")
    assert (row.ratio, row.low, row.high) == (2.0, 1.0, 3.0)


def test_rates_are_told_with_the_peak_where_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    where = Hardware(torch.device("cuda"), "bf16")
    for name, shares in (("NVIDIA H200", [0.1]), ("NVIDIA Something", [])):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        rates = _measure.rates(18, 98.9e12 / 2, [0.1, 0.5, 0.9], where)
        assert list(rates.values()) == pytest.approx([36, 98.9, *shares])


def test_a_step_has_its_operations() -> None:
    """364 GFLOP forward and 728 backward for 18 patches of 100x100, less those with the first stage's zeros."""
    plain, distilled = (18 * training_step.flops(100, distilled) for distilled in (False, True))
    assert 0.95 * 1.092e12 < plain < 1.092e12
    assert 0.95 * 0.364e12 < distilled - plain < 0.364e12


def test_saturation_runs_to_its_end(tmp_path: Path) -> None:
    whole, profiled = tmp_path / "result.json", tmp_path / "profile.txt"
    options = ["--batch", "1", "--patch", "24", "--most", "2", "--steps", "1", "--threads", "1"]
    command = [sys.executable, "-m", "benchmarks.saturation", *options, "--json", str(whole)]
    subprocess.run([*command, "--profile", str(profiled)], cwd=ROOT, capture_output=True, check=True)
    result = json.loads(whole.read_text())
    assert [row["baseline"] for row in result["rows"]] == ["plain"] * 2
    assert result["facts"]["batch 1, samples a second"] > 0
    assert "convolution" in profiled.read_text()


BENCHMARKS = sorted({file.stem for file in ROOT.glob("benchmarks/[!_]*.py")} - {"baseline"})
SMALL = {"inference": ["--size", "40x32"], "startup": [], "growth": ["--tasks", "2"]}


def run(name: str, file: Path, *options: str) -> str:
    """What a small run of a benchmark prints; it writes `file` too."""
    size = SMALL.get(name, ["--batch", "1", "--patch", "24"])
    command = [sys.executable, "-m", f"benchmarks.{name}", "--steps", "1", "--threads", "1", *size, *options]
    return subprocess.run([*command, "--json", str(file)], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", BENCHMARKS)
def test_ours_only_prints_one_number_and_writes_it(name: str, tmp_path: Path) -> None:
    printed = json.loads(run(name, tmp_path / "ours.json", "--ours-only"))
    written = json.loads((tmp_path / "ours.json").read_text())
    assert printed["median_s"] == written["median_s"] > 0
    assert written["machine"]


@pytest.mark.parametrize("name", ["training_step", "inference", "importance", "data"])
def test_a_whole_run_is_written(name: str, tmp_path: Path) -> None:
    run(name, tmp_path / "result.json")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["machine"]
    assert result["rows"] or result["facts"]
