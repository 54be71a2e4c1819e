"""Finds plug-ins: a file of one of the five folders is one, and its name is how params.yaml selects it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from derain.types import ParamsError

Kind = Literal["backbones", "objectives", "recipes", "strategies", "sources"]
Selected = Literal["backbones", "objectives", "recipes", "strategies"]

KEYS: Mapping[Kind, str] = {
    "backbones": "backbone",
    "objectives": "objective",
    "recipes": "recipe",
    "strategies": "strategy",
    "sources": "source",
}
"""The folders of plug-ins, and the key of params.yaml that names one of each folder's files."""

SELECTED: tuple[Selected, ...] = ("backbones", "objectives", "recipes", "strategies")
"""The kinds of which params.yaml selects one, which has a section there that bears its name."""


def names(kind: Kind) -> list[str]:
    """The names of a folder's plug-ins: its files but those that begin with an underscore."""
    modules = pkgutil.iter_modules(importlib.import_module(f"derain.{kind}").__path__)
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def load(kind: Kind, name: str, key: str | None = None) -> Any:
    """Imports src/derain/<kind>/<name>.py; ParamsError, naming the `key` that selects it, where there is none."""
    if name not in names(kind):
        key = key or f"params.yaml: {KEYS[kind]}"
        raise ParamsError(f"{key}: no file {kind}/{name}.py. Allowed: {', '.join(names(kind))}.")
    return importlib.import_module(f"derain.{kind}.{name}")


def file(kind: Kind, name: str) -> Path:
    """The file of a plug-in; ParamsError where there is none."""
    return Path(load(kind, name).__file__)
