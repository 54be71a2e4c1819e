"""Models and masks on disk: safetensors with what made them and a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from derain.disk.atomic import write_atomically
from derain.types import DataError

_FORMAT = 1


def save(path: Path, tensors: Mapping[str, Tensor], made_by: Mapping[str, Any]) -> None:
    """Writes tensors and what made them, with library versions and a checksum over both.

    The same tensors and metadata give the same bytes.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    made = {
        "format": _FORMAT,
        **made_by,
        "libraries": {name: version(name) for name in ("torch", "numpy", "safetensors")},
    }
    made["sha256"] = checksum(stored, made)
    # One key only: the library writes several in no fixed order.
    write_atomically(path, safetensors.torch.save(stored, {"derain": json.dumps(made, sort_keys=True)}))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads tensors and what made them, and verifies the checksum.

    Raises:
        DataError: the file is missing, damaged, or not of this project.
    """
    try:
        with safe_open(path, framework="pt") as file:
            made = json.loads((file.metadata() or {}).get("derain", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise DataError(f"{path} is missing. Run `dvc repro`, or `dvc pull` where a remote has it.") from None
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path} is damaged or no safetensors file ({error}).") from None
    if not isinstance(made, dict) or "sha256" not in made:
        raise DataError(f"{path} was not written by this project: it does not say what made it.")
    if checksum(tensors, {key: value for key, value in made.items() if key != "sha256"}) != made["sha256"]:
        raise DataError(f"{path} is damaged: its checksum differs. Remove it and run `dvc repro` or `dvc pull`.")
    return tensors, made


def checksum(tensors: Mapping[str, Tensor], made_by: Mapping[str, Any]) -> str:
    """sha256 over names, types, shapes and bytes of the tensors, and over what made them."""
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
