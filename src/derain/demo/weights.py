"""The weights that the page offers, and what each of them is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from derain import console
from derain.disk import artifacts
from derain.types import DataError, ParamsError

SUFFIXES = {".safetensors": "", ".onnx": "exported to ONNX", ".pth": "a published checkpoint"}
"""Files of networks, and what those are that do not say it themselves."""


class Choice(NamedTuple):
    """A file of weights, and what it is, in a few words."""

    path: Path
    about: str


def at_hand(given: Sequence[Path]) -> list[Choice]:
    """The weights named, in their order; of a folder all networks directly in it, the newest task first.

    A file of a folder that is damaged or holds no network is left out, with a warning.

    Raises:
        DataError: a file that is named is missing or damaged.
        ParamsError: there are no weights at all.
    """
    made = {path: _made_by(path) for path in given if not path.is_dir()}
    for folder in given:
        if folder.is_dir():
            made |= _networks_of(folder)
    if not made:
        where = ", ".join(map(str, given))
        raise ParamsError(f"no weights in {where}: run `dvc repro` there, or name files or a folder with --weights")
    by_checksum = {of["sha256"]: of for of in made.values() if "sha256" in of}
    return [Choice(path, SUFFIXES.get(path.suffix) or _about(of, by_checksum)) for path, of in made.items()]


def _networks_of(folder: Path) -> dict[Path, dict[str, Any]]:
    made = {}
    for path in sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES):
        try:
            made[path] = _made_by(path)
        except DataError as error:
            console.warn(f"left out: {error}")
    return dict(sorted(made.items(), key=lambda item: -item[1].get("position", -1)))


def _made_by(path: Path) -> dict[str, Any]:
    """What made the weights; nothing where the file does not say."""
    if SUFFIXES.get(path.suffix):
        return {}
    _, made = artifacts.load(path)
    if "backbone" not in made:
        raise DataError(f"{path} holds no network but {made.get('kind', 'something else')}.")
    return made


def _about(made: Mapping[str, Any], by_checksum: Mapping[str, Mapping[str, Any]]) -> str:
    size = ", ".join(f"{count} {what}" for what, count in made[made["backbone"]].items())
    parts = [" → ".join(_learned(made, by_checksum)), made.get("strategy"), f"{made['backbone']} ({size})"]
    return " · ".join(part for part in parts if part)


def _learned(made: Mapping[str, Any], by_checksum: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The data sets in the order they were learned; "…" for those before a model that is not at hand."""
    if "dataset" not in made:
        return []
    earlier = made.get("made_from", {}).get("model")
    if earlier is None:
        return [made["dataset"]]
    before = _learned(by_checksum[earlier], by_checksum) if earlier in by_checksum else ["…"]
    return [*before, made["dataset"]]
