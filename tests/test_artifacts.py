"""Models and masks on disk: the same bytes again, damage noticed, other networks refused."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from derain.backbones import prenet
from derain.disk import artifacts, atomic, networks
from derain.restore import network as restore_network
from derain.types import DataError

SIZE = prenet.Params(channels=4, stages=2, blocks=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "task0.safetensors"
    networks.save_network(path, prenet.build(SIZE).state_dict(), "prenet", SIZE, {"kind": "model", "seed": 0})
    return path


def test_round_trip(model: Path) -> None:
    torch.manual_seed(0)
    network = networks.load_network(model)
    rainy = torch.rand(1, 3, 16, 16)
    torch.manual_seed(0)
    assert torch.equal(network(rainy).derained, prenet.build(SIZE)(rainy).derained)
    assert not any(weight.requires_grad for weight in network.parameters())
    with safe_open(model, framework="pt") as file:
        made = json.loads(file.metadata()["derain"])
    assert made["seed"] == 0
    assert {"torch", "safetensors", "numpy"} <= made["libraries"].keys()


def test_the_same_content_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    again = tmp_path / "again.safetensors"
    networks.save_network(again, prenet.build(SIZE).state_dict(), "prenet", SIZE, {"kind": "model", "seed": 0})
    assert again.read_bytes() == model.read_bytes()


def test_every_flipped_bit_of_a_sample_is_noticed(model: Path) -> None:
    good = model.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        place = int(torch.randint(len(good), (1,), generator=generator))
        bit = int(torch.randint(8, (1,), generator=generator))
        damaged = bytearray(good)
        damaged[place] ^= 1 << bit
        model.write_bytes(damaged)
        with pytest.raises(DataError):
            artifacts.load(model)


def test_truncated_foreign_and_missing_files_are_named(tmp_path: Path, model: Path) -> None:
    cases = {
        "cut.safetensors": model.read_bytes()[:-100],
        "empty.safetensors": b"",
        "text.safetensors": b"<html>not found</html>",
        "text.pth": b"<html>not found</html>",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            networks.load_network(tmp_path / name)
    with pytest.raises(DataError, match="dvc repro"):
        networks.load_network(tmp_path / "missing.safetensors")


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    import pickle

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    torch.save({"conv0.0.weight": Hostile()}, tmp_path / "hostile.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Hostile()))
    for name in ("hostile.pth", "bare.pth"):
        with pytest.raises(DataError, match="plain tensors"):
            networks.load_network(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_published_checkpoint_is_read(tmp_path: Path) -> None:
    full = prenet.build(prenet.Params(channels=32, stages=6, blocks=5))
    torch.save(full.state_dict(), tmp_path / "net_latest.pth")
    network = networks.load_network(tmp_path / "net_latest.pth")
    rainy = torch.rand(1, 3, 12, 12)
    assert torch.equal(network(rainy).derained, full(rainy).derained)


def test_weights_of_another_size_name_the_first_tensor_that_differs(model: Path) -> None:
    weights, _ = artifacts.load(model)
    with pytest.raises(DataError, match=r"another network: conv\.0\.weight is"):
        networks.check_weights("prenet", prenet.Params(channels=5, stages=2, blocks=1), weights, model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_derain_nothing(tmp_path: Path, value: float) -> None:
    network = prenet.build(SIZE)
    with torch.no_grad():
        network.get_parameter("res_conv1.0.weight")[0, 0, 0, 0] = value
    networks.save_network(
        tmp_path / "w.safetensors", network.state_dict(), "prenet", SIZE, {"kind": "model", "seed": 0}
    )
    with pytest.raises(DataError, match=r"w\.safetensors is damaged: it holds weights that are not finite"):
        restore_network.load(tmp_path / "w.safetensors", "cpu", "fp32")


def test_a_mask_is_no_network(tmp_path: Path) -> None:
    artifacts.save(tmp_path / "mask.safetensors", {"w": torch.ones(3, dtype=torch.bool)}, {"kind": "mask"})
    with pytest.raises(DataError, match="no network but mask"):
        networks.load_network(tmp_path / "mask.safetensors")


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    atomic.write_json(path, {"a": 1})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(path, {"a": float("nan")})

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DataError, match=r"file\.json cannot be written: No space"):
        atomic.write_json(path, {"a": 2})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
