"""Crops gathered on a device are those that are read from the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from derain.data.pack import Pack, write_pack
from derain.training import crops, pixels
from tests.conftest import noisy_pairs

CPU = torch.device("cpu")


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """Pairs of two sizes, each followed by its mirror image."""
    small = noisy_pairs(0, 60, count=2)
    large = [pair._replace(name=f"large {pair.name}") for pair in noisy_pairs(1, 60, count=2, height=31, width=45)]
    write_pack(tmp_path, "train", [*small, *large], stride=3, flip=True)
    return Pack.open(tmp_path, "train")


def test_gathered_crops_are_the_packs(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "_SENT_AT_ONCE", 1000)  # several uploads, the last one smaller
    uploaded = pixels.Uploaded(pack, CPU)
    random = pack.random(np.random.default_rng(0), 500, 17)
    for positions in (pack.grid(17), random, random[:1], random[:0]):
        for gathered, read in zip(uploaded.crops(positions, 17), pack.crops(positions, 17), strict=True):
            assert gathered.dtype == torch.uint8
            assert np.array_equal(gathered.numpy(), read)


def test_positions_outside_are_refused(pack: Pack) -> None:
    uploaded = pixels.Uploaded(pack, CPU)
    for position in ((0, 0, 16), (0, -1, 0), (8, 0, 0)):
        with pytest.raises(ValueError, match="positions"):
            uploaded.crops(np.array([position]), 17)


def test_levels_are_divided_alike(pack: Pack) -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    expected = torch.from_numpy(levels.numpy().astype(np.float32) / np.float32(255)).permute(0, 3, 1, 2)
    assert torch.equal(crops.to_tensor(levels), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("share", [pixels.SHARE, 0.0])
def test_a_gpu_has_the_same_batches(pack: Pack, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "SHARE", share)
    pixels._uploaded.cache_clear()
    on = {name: crops.for_importance(pack, 17, 0, 0, 40, 6, torch.device(name)) for name in ("cpu", "cuda")}
    for read, gathered in zip(*on.values(), strict=True):
        assert torch.equal(gathered.rainy.cpu(), read.rainy)
        assert torch.equal(gathered.clean.cpu(), read.clean)
