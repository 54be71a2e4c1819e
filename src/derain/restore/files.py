"""A user's pictures on disk: which are meant, and where each goes."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from derain.data.pictures import SUFFIXES, list_pictures
from derain.restore.formats import WRITTEN
from derain.types import ParamsError


class Job(NamedTuple):
    """A rainy picture, the file that its derained version goes to, and the picture of both side by side, if asked."""

    rainy: Path
    derained: Path
    compared: Path | None = None


def plan(
    inputs: Sequence[str | Path],
    folder: Path,
    recursive: bool = False,
    written: str | None = None,
    compare: bool = False,
) -> list[Job]:
    """One job for each picture that is named, matches a pattern, or lies in a folder named.

    Each goes to `folder` under its own name; below a folder that is searched recursively it keeps its path there. A
    picture that is named twice is one job, and what lies in the output folder is not an input. Nothing is read or
    written yet.

    Args:
        inputs: files, folders, and patterns such as `photos/**/*.jpg`.
        folder: the output folder.
        recursive: folders with all folders below them.
        written: a key of `WRITTEN`: the format of all outputs, which their suffix follows. None: each as its input;
            PNG for formats that are not written.
        compare: each output has a STEM.compared.jpg beside it.

    Raises:
        ParamsError: an input does not exist, no picture is found, the output folder is a file, two pictures would go to
            one file, or a picture would be overwritten by its own derived version.
    """
    if folder.exists() and not folder.is_dir():
        raise ParamsError(f"-o {folder} is a file; name a folder")
    jobs: dict[Path, Job] = {}
    for rainy, relative in _unique(_found(inputs, folder, recursive)):
        derained = folder / relative.with_suffix(_suffix(rainy, written))
        job = Job(rainy, derained, derained.with_suffix(".compared.jpg") if compare else None)
        for path in filter(None, job[1:]):
            if path in jobs:
                raise ParamsError(
                    f"{jobs[path].rainy} and {rainy} would both become {path}; use an output folder for each"
                )
            if path.exists() and path.samefile(rainy):
                raise ParamsError(f"{rainy} would be overwritten by its derained version; name another folder with -o")
            jobs[path] = job
    if not jobs:
        raise ParamsError(f"no picture in {', '.join(map(str, inputs))}")
    return list(dict.fromkeys(jobs.values()))


def _suffix(rainy: Path, written: str | None) -> str:
    if written is None:
        return rainy.suffix if SUFFIXES.get(rainy.suffix.lower()) in WRITTEN else ".png"
    return rainy.suffix if SUFFIXES.get(rainy.suffix.lower()) == written else WRITTEN[written]


def _found(inputs: Iterable[str | Path], output: Path, recursive: bool) -> Iterator[tuple[Path, Path]]:
    """The pictures, and where each lies below the folder that was named."""
    for given in inputs:
        for path in _expanded(Path(given)):
            if not path.is_dir():
                yield path, Path(path.name)
                continue
            folders = [path, *sorted(below for below in path.rglob("*") if below.is_dir())] if recursive else [path]
            for folder in folders:
                if folder == path or not folder.resolve().is_relative_to(output.resolve()):
                    yield from ((picture, picture.relative_to(path)) for picture in list_pictures(folder))


def _expanded(given: Path) -> list[Path]:
    if given.exists():
        return [given]
    matches = [Path(match) for match in sorted(glob.glob(str(given), recursive=True))]  # noqa: PTH207 - absolute patterns too
    if not matches:
        raise ParamsError(f"{given}: no such file or folder")
    return matches


def _unique(pictures: Iterable[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    by_file: dict[tuple[Path, Path], tuple[Path, Path]] = {}
    for picture, relative in pictures:
        by_file.setdefault((picture.resolve(), relative), (picture, relative))
    return list(by_file.values())
