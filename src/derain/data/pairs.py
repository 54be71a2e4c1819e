"""Folders of rainy and clean pictures: which belong together, by their names, and reading them.

The names that the benchmark sets and their copies use (see `derain.data.benchmark`):

    rainy                   clean                     in
    X                       X                         two folders
    rain-X, rainX, X_rain   norain-X, norainX, X_clean, X   one folder or two
    X                       X_gt, Xgt                 two folders (SPA-Data)
    norain-Xx2              norain-X                  two folders (Rain100H and L as changed by their authors)
    X_1 ... X_14            X                         one folder or two (Rain14000)

and, for Rain800, both in one picture, side by side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from derain.data.pictures import list_pictures, read_picture
from derain.types import DataError, Pair

Side = Literal["left", "right"]

_CLEAN = r"no[-_ ]?rain|clean|ground[-_ ]?truth|gt|target"
_RAINY = r"rainy|rain|input"
_BEFORE = re.compile(rf"(?:(?P<clean>{_CLEAN})|(?P<rainy>{_RAINY}))(?:[-_ ]|(?=[0-9]))(?P<key>.+)")
_AFTER = re.compile(rf"(?P<key>.+?)(?:(?:[-_ ]|(?<=[0-9]))(?P<clean>{_CLEAN})|[-_ ](?P<rainy>{_RAINY}|in))")
_SCALE = re.compile(r"(?<=[0-9])x2$")
_RAIN_NUMBER = re.compile(r"_[0-9]{1,2}$")
# RainTrainL holds the streaks and where they are beside the pairs (csdwren/PReNet#32).
_NEITHER = re.compile(r"rain[-_ ]?(?:streak|region)s?(?:[-_ ]|(?=[0-9]))")


class PairFiles(NamedTuple):
    """The files of one pair; `name` is the rainy file's, without its suffix."""

    name: str
    rainy: Path
    clean: Path


class PairReader:
    """Pairs of known number, each read from its files when its turn comes; can be gone through again."""

    def __init__(self, entries: Sequence[Any], read: Callable[[Any], Pair]) -> None:
        self._entries = entries
        self._read = read

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Pair]:
        return map(self._read, self._entries)


def read_pairs(files: Sequence[PairFiles]) -> PairReader:
    """The pictures of `files`, in their order; a clean picture that several in a row share is decoded once.

    Raises (while they are read):
        DataError: a file that cannot be read, or two of different sizes; names the files.
    """
    last: dict[Path, np.ndarray] = {}

    def read(entry: PairFiles) -> Pair:
        rainy = read_picture(entry.rainy)
        if entry.clean not in last:
            last.clear()
            last[entry.clean] = read_picture(entry.clean)
        clean = last[entry.clean]
        if rainy.shape != clean.shape:
            sizes = [f"{picture.shape[1]}x{picture.shape[0]}" for picture in (rainy, clean)]
            raise DataError(
                f"{entry.rainy} is {sizes[0]}, its clean picture {entry.clean} is {sizes[1]}: "
                "both must have one size; replace or remove them"
            )
        return Pair(entry.name, rainy, clean)

    return PairReader(files, read)


def joined_pairs(folder: Path, rainy_side: Side) -> PairReader:
    """Pairs that are stored as one picture each, the rainy and the clean half side by side (Rain800).

    Raises:
        DataError: no pictures in `folder`; while they are read: one that cannot be read or has no two equal halves.
    """
    files = list_pictures(folder)
    if not files:
        raise DataError(f"{folder} holds no pictures")
    _refuse_equal_names(files)
    return PairReader(files, partial(_halves, rainy_side=rainy_side))


def _halves(path: Path, rainy_side: Side) -> Pair:
    picture = read_picture(path)
    height, width = picture.shape[:2]
    if width % 2:
        raise DataError(f"{path} is {width}x{height}: a rainy and a clean half side by side have an even width")
    left, right = picture[:, : width // 2], picture[:, width // 2 :]
    return Pair(path.stem, left, right) if rainy_side == "left" else Pair(path.stem, right, left)


def folder_pairs(rainy: Path, clean: Path, *, spare_clean: bool = False) -> list[PairFiles]:
    """Finds the clean picture of every rainy one by its name, in one of the ways listed at the head of this module.

    Both may be the same folder; then the names tell which is which. Letters' case and suffixes (.png, .jpg) play no
    part, nor do files named `rainstreak` and `rainregion`.

    Args:
        rainy: folder of the rainy pictures.
        clean: folder of the clean pictures.
        spare_clean: clean pictures without a rainy one are left out instead of refused (the strict release of
            Rain100H has some).

    Returns:
        The pairs in natural order of the rainy names.

    Raises:
        DataError: a missing folder, no rainy picture, pictures without counterpart, or two of the same name; names
            a few of them and says how many.
    """
    together = rainy.resolve() == clean.resolve()
    rainy_files, clean_files = _one_folder(rainy) if together else (_candidates(rainy), _candidates(clean))
    if not rainy_files:
        raise DataError(f"{rainy} holds no rainy pictures; they are told by names such as rain-1.png and norain-1.png")
    _refuse_equal_names(rainy_files)
    finder = _CleanFinder(clean_files)
    matches = [(path, finder.find(path)) for path in rainy_files]
    used = {match for _, match in matches}
    lonely = [path for path, match in matches if match is None]
    spare = [] if spare_clean else [path for path in clean_files if path not in used]
    if clean in rainy.parents:  # PReNet's test folders: Rain100H/rainy/rain-001.png is Rain100H/rain-001.png again
        spare = [path for path in spare if _role(path) != "rainy"]
    if lonely or spare:
        parts = [
            f"{len(paths)} {what} ({_a_few(paths)})"
            for paths, what in (
                (lonely, f"rainy pictures in {rainy} have no clean one in {clean}"),
                (spare, f"clean pictures in {clean} have no rainy one in {rainy}"),
            )
            if paths
        ]
        raise DataError("; ".join(parts) + ": add their counterparts or remove them")
    return [PairFiles(path.stem, path, match) for path, match in matches if match is not None]


def _candidates(folder: Path) -> list[Path]:
    return [path for path in list_pictures(folder) if not _NEITHER.match(path.stem.casefold())]


def _one_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Rainy and clean pictures of one folder: by their marks, else by being X_1 beside X."""
    files = _candidates(folder)
    roles = {_role(path) for path in files}
    stems = {path.stem.casefold() for path in files}

    def is_rainy(path: Path) -> bool:
        role = _role(path)
        if role is not None or {"rainy", "clean"} <= roles:
            return role == "rainy"
        if roles != {None}:
            return "clean" in roles
        return _RAIN_NUMBER.sub("", path.stem.casefold()) in stems - {path.stem.casefold()}

    return [path for path in files if is_rainy(path)], [path for path in files if not is_rainy(path)]


def _parse(path: Path) -> tuple[Literal["rainy", "clean"] | None, str]:
    """What a file's name says of its role, and the rest of the name, in small letters."""
    stem = path.stem.casefold()
    stem = _SCALE.sub("", stem)
    match = _BEFORE.fullmatch(stem) or _AFTER.fullmatch(stem)
    if match is None:
        return None, stem
    return ("clean" if match["clean"] else "rainy"), match["key"]


def _role(path: Path) -> Literal["rainy", "clean"] | None:
    return _parse(path)[0]


class _CleanFinder:
    """Clean pictures by what their names say."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._by_stem: dict[str, Path] = {}
        self._by_key: dict[str, Path] = {}
        for path in files:
            role, key = _parse(path)
            _add(self._by_stem, path.stem.casefold(), path)
            if role == "clean":
                _add(self._by_key, key, path)

    def find(self, rainy: Path) -> Path | None:
        role, key = _parse(rainy)
        stem = rainy.stem.casefold()
        same = self._by_stem.get(stem)
        # Where the clean folder holds the rainy pictures too, norain-1 goes before rain-1.
        if same is not None and role != "rainy":
            return same
        shared = _RAIN_NUMBER.sub("", key)
        return (
            self._by_key.get(key)
            or same
            or self._by_stem.get(key)
            or self._by_key.get(shared)
            or self._by_stem.get(shared)
        )


def _add(paths: dict[str, Path], name: str, path: Path) -> None:
    if name in paths:
        raise DataError(f"{paths[name]} and {path} answer to one name: remove one of them")
    paths[name] = path


def _refuse_equal_names(files: Iterable[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in files:
        _add(seen, path.stem.casefold(), path)


def _a_few(paths: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in paths[:3])
    return names + (", ..." if len(paths) > 3 else "")
