"""Networks in files: this project's own, and the checkpoints that PReNet's authors published."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from derain import plugins
from derain.disk.artifacts import load, save
from derain.types import DataError, DerainError

_PATIENCE = 60.0
"""Seconds for a stranger's checkpoint, the start of torch on a busy machine included."""


_OBJECTIVE = "objective/"
"""Before the names of an objective's tensors; no module's name holds a slash."""


def build_network(backbone: str, section: Any) -> nn.Module:
    """The backbone of that name, from the `Params` of its file."""
    return cast(nn.Module, plugins.load("backbones", backbone).build(section))


def save_network(
    path: Path,
    weights: Mapping[str, Tensor],
    backbone: str,
    section: Any,
    made_by: Mapping[str, Any],
    objective: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Writes a network's weights with all that is needed to build it again, and beside them its objective's tensors."""
    tensors = {**weights, **{_OBJECTIVE + name: tensor for name, tensor in objective.items()}}
    save(path, tensors, {"backbone": backbone, backbone: section.model_dump(), **made_by})


def parts_of(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A file's tensors as those of the network and those of its objective."""
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(_OBJECTIVE)}
    return weights, {name.removeprefix(_OBJECTIVE): tensors[name] for name in tensors.keys() - weights.keys()}


def load_network(path: Path | str, device: torch.device | str = "cpu") -> nn.Module:
    """Builds a network from its file, ready for inference: frozen, in eval mode, on the device.

    Reads this project's safetensors, and the checkpoints that PReNet's authors published (`.pth`, weights only).

    Raises:
        DataError: the file is missing or damaged, or belongs to another network.
    """
    path = Path(path)
    if path.suffix in {".pth", ".pt"}:
        weights = _read_published(path)
        try:
            network = plugins.load("backbones", "prenet").from_published(weights)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    else:
        weights, made = load(path)
        if "backbone" not in made:
            raise DataError(f"{path} holds no network but {made.get('kind', 'something else')}.")
        network = _described(path, made, parts_of(weights)[0])
    return cast(nn.Module, network.to(device).eval().requires_grad_(False))


def _described(path: Path, made: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """The network that a file says it holds, with its weights."""
    name = made["backbone"]
    try:
        plugin = plugins.load("backbones", name)
        section = plugin.Params(**made[name])
    except (DerainError, ValueError, TypeError, KeyError):
        raise DataError(f"{path} holds a network that this version does not know ({str(name)[:80]!r}).") from None
    with torch.device("meta"):  # shapes without memory: the file may say that it holds more than there is
        expected = plugin.build(section)
    _check_shapes(expected, weights, path)
    network: nn.Module = plugin.build(section)
    network.load_state_dict(dict(weights))
    return network


def check_weights(backbone: str, section: Any, weights: Mapping[str, Tensor], path: Path) -> nn.Module:
    """The backbone of that name, for the weights of a file; DataError names the first that is none of its own."""
    network = build_network(backbone, section)
    _check_shapes(network, weights, path)
    return network


def _check_shapes(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    stored = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | stored.keys()):
        if expected.get(name) != stored.get(name):
            raise DataError(
                f"{path} belongs to another network: {name} is {stored.get(name, 'missing')} there and "
                f"{expected.get(name, 'missing')} here. Use the backbone section it was trained with."
            )


def _read_published(path: Path) -> dict[str, Tensor]:
    """The tensors of a stranger's checkpoint, which a process of its own reads: see `derain.disk.foreign`."""
    if not path.is_file():
        raise DataError(f"{path} is missing.")
    command = [sys.executable, "-m", "derain.disk.foreign", str(path.absolute())]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    try:
        read = subprocess.run(command, env=environment, capture_output=True, timeout=_PATIENCE, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise DataError(f"{path} is no checkpoint of plain tensors (reading it took {_PATIENCE:.0f} s).") from None
    if read.returncode < 0:
        raise DataError(f"{path} is no checkpoint of plain tensors (reading it took too much time or memory).")
    if read.returncode != 0:
        reason = (read.stderr.decode(errors="replace").splitlines() or ["no reason was given"])[-1]
        raise DataError(f"{path} is no checkpoint of plain tensors ({reason}).")
    return safetensors.torch.load(read.stdout)
