"""Finds plug-ins: a file of one of the five folders is one, and its name is how params.yaml selects it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

from derain.types import ParamsError


def load_plugin(kind: Literal["backbones", "strategies"], name: str) -> Any:
    """Imports src/derain/<kind>/<name>.py; ParamsError where there is no such file."""
    if name not in plugins(kind):
        raise ParamsError(
            f"params.yaml: {kind_key(kind)}: no file {kind}/{name}.py. Allowed: {', '.join(plugins(kind))}."
        )
    return importlib.import_module(f"derain.{kind}.{name}")


def kind_key(kind: str) -> str:
    """The key of params.yaml that selects one of a folder's files."""
    return {"backbones": "backbone", "strategies": "strategy"}[kind]


def plugins(kind: Literal["backbones", "strategies"]) -> list[str]:
    """The names of the files of src/derain/<kind>, without those that begin with an underscore."""
    return sorted(file.stem for file in (Path(__file__).parent / kind).glob("[!_]*.py"))
