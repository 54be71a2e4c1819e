"""Whether every artifact of the pipeline is what the pipeline wrote, and how to get one back that is not.

Two checks that do not know of each other: the MD5 that dvc.lock records of every output, and the checksums that models,
masks and packs carry within. DVC takes a read-only file of its cache for intact without looking, and would serve a
rotten one again: so a file of the cache with other bytes is named too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from derain.console import track
from derain.data.pack import Pack
from derain.disk import artifacts
from derain.types import DataError


@dataclass(frozen=True)
class Output:
    """An output of a stage as dvc.lock records it; the MD5 of a folder ends in .dir."""

    stage: str
    path: Path
    md5: str


@dataclass(frozen=True)
class Fault:
    """A file that is not what it was, and the commands that bring it back."""

    path: Path
    reason: str
    cure: str


def outputs(root: Path) -> list[Output]:
    """All outputs that dvc.lock records.

    Raises:
        DataError: there is no dvc.lock, or it is damaged.
    """
    path = root / "dvc.lock"
    try:
        stages = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
        return [
            Output(name, root / out["path"], out["md5"])
            for name, stage in stages.items()
            for out in stage.get("outs", [])
        ]
    except FileNotFoundError:
        raise DataError(f"{path} is missing: nothing has been recorded here. Run `dvc repro`.") from None
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        raise DataError(f"{path} is damaged. Take it from git: git checkout dvc.lock") from None


def faults(root: Path) -> Iterator[Fault]:
    """Every output of the pipeline that is missing or not what was written, in the order of dvc.lock."""
    for output in track(outputs(root), "verify"):
        cached = _cache(root, output.md5)
        rotten = [path for path in (cached, *_cached_parts(root, cached)) if path.exists() and _rotten(path)]
        reason = _fault(output)
        if reason or rotten:
            remove = f"rm -f {' '.join(str(path.relative_to(root)) for path in rotten)} && " if rotten else ""
            name = output.path.relative_to(root)
            cure = f"{remove}rm -rf {name} && dvc repro --force --single-item {output.stage}"
            yield Fault(output.path, reason or "is intact, but its copy in DVC's cache is damaged", cure)


def _fault(output: Output) -> str | None:
    if not output.path.exists():
        return "is missing"
    if _md5(output.path) != output.md5:
        return "is damaged: it is not what dvc.lock records"
    try:
        _own_checksum(output.path)
    except DataError as error:
        return f"is damaged ({error})"
    return None


def _own_checksum(path: Path) -> None:
    if path.suffix == ".safetensors":
        artifacts.load(path)
    if path.is_dir():
        for pack in sorted(path.glob("*.pack")):
            Pack.open(path, pack.stem)


def _md5(path: Path) -> str:
    """As DVC computes it: of a folder, of the list of its files."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    entries = [{"md5": _md5(file), "relpath": file.relative_to(path).as_posix()} for file in files]
    entries.sort(key=lambda entry: entry["relpath"])
    text = json.dumps(entries, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def _cache(root: Path, md5: str) -> Path:
    return root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def _cached_parts(root: Path, folder: Path) -> list[Path]:
    """The files of a folder that the cache holds, by the list that it holds of them."""
    if folder.suffix != ".dir" or not folder.exists():
        return []
    try:
        entries: list[dict[str, Any]] = json.loads(folder.read_text(encoding="utf-8"))
        return [_cache(root, entry["md5"]) for entry in entries]
    except (ValueError, KeyError, TypeError):
        return []


def _rotten(path: Path) -> bool:
    """Whether a file of the cache has other bytes than its name says."""
    return _md5(path) != (path.parent.name + path.name).removesuffix(".dir")
