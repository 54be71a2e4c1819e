"""The network as an ONNX file: equal to torch, of any size, and hostile files refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import derain
from derain import cli
from derain.backbones import prenet
from derain.disk import artifacts, networks
from derain.restore import onnx as ours
from derain.types import DataError, NumericError, ParamsError

SECTION = prenet.Params(channels=4, stages=2, blocks=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("onnx") / "task0.safetensors"
    networks.save_network(
        path, networks.build_network("prenet", SECTION).state_dict(), "prenet", SECTION, {"kind": "model", "task": "0"}
    )
    return path


@pytest.fixture(scope="module")
def exported(weights: Path) -> Path:
    path = weights.with_suffix(".onnx")
    assert cli.main(["export", "--weights", str(weights), "-o", str(path)]) == 0
    return path


def test_the_file_is_sound_and_says_what_made_it(exported: Path, weights: Path) -> None:
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    (entry,) = model.metadata_props
    made = json.loads(entry.value)
    assert made["receptive_radius"] == 2 * (1 + 1 + 2 + 1), "two stages of conv0, gates, one block, conv"
    assert made["made_by"]["sha256"] == artifacts.load(weights)[1]["sha256"]
    assert exported.stat().st_size < 2 * weights.stat().st_size + 100_000


@pytest.mark.parametrize("size", [(20, 30), (1, 1), (7, 61), (101, 99)])
def test_any_size_equals_torch(exported: Path, weights: Path, size: tuple[int, int]) -> None:
    rainy = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    one = derain.load(exported).restore(rainy)
    other = derain.load(weights, "cpu", "fp32").restore(rainy)
    assert np.abs(one.astype(int) - other).max() <= 1
    tiled = derain.load(exported, tile=16).restore(rainy)
    assert np.abs(one.astype(int) - tiled).max() <= 1


def test_a_file_that_differs_from_torch_is_not_written(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "LARGEST_DIFFERENCE", -1.0)
    with pytest.raises(NumericError, match="differ"):
        ours.export(weights, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def identity(path: Path, **changes: object) -> Path:
    shape: list[str | int | None] = ["n", 3, "h", "w"]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("rainy", "derained")]
    nodes = [helper.make_node("Identity", ["rainy"], ["derained"])]
    constants = []
    if changes.get("external"):
        tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        place = tensor.external_data.add()
        place.key, place.value = "location", "secret.bin"
        constants.append(tensor)
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if "metadata" in changes:
        helper.set_model_props(model, {"derain": str(changes["metadata"])})
    path.write_bytes(model.SerializeToString())
    return path


def test_strange_files_are_refused(tmp_path: Path, exported: Path) -> None:
    content = exported.read_bytes()
    for name, bad in {
        "empty": b"",
        "noise": np.random.default_rng(0).bytes(3000),
        "cut": content[: len(content) // 2],
        "html": b"<html></html>",
    }.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(bad)
        with pytest.raises(DataError, match=name):
            derain.load(path)
    with pytest.raises(DataError, match=r"points to other files|damaged"):
        derain.load(identity(tmp_path / "external.onnx", external=True, metadata='{"receptive_radius": 0}'))
    for metadata in ("{", "{}", '{"receptive_radius": -1}', '{"receptive_radius": "far"}'):
        with pytest.raises(DataError, match="was not exported by"):
            derain.load(identity(tmp_path / "radius.onnx", metadata=metadata))
    with pytest.raises(DataError, match="was not exported by"):
        derain.load(identity(tmp_path / "none.onnx"))
    fine = derain.load(identity(tmp_path / "fine.onnx", metadata='{"receptive_radius": 0}'))
    rainy = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    assert np.array_equal(fine.restore(rainy), rainy)


def test_a_missing_extra_says_how_to_get_it(
    weights: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ParamsError, match=r"pip install '\.\[onnx\]'"):
        ours.export(weights, tmp_path / "out.onnx")
    with pytest.raises(ParamsError, match=r"pip install '\.\[onnx\]'"):
        derain.load(exported)
