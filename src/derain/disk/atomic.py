"""How a file comes to lie under its name: complete or not at all."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from derain.types import DataError, SpaceError

_MAKE_SPACE = "Make space and run it again."


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that appears under its name only when it is complete and on disk.

    Raises:
        DataError: it cannot be written; what lay there before is unchanged.
        SpaceError: the disk is full; likewise.
    """
    with new_file(path, needed=len(content)) as file:
        file.write(content)


@contextmanager
def new_file(path: Path, outdated: Path | None = None, needed: int | None = None) -> Iterator[BinaryIO]:
    """A file to write into that appears under `path` when the block ends well, and not at all otherwise.

    What a process that was killed left of an earlier try is removed.

    Args:
        outdated: a file that describes what lay there before; it is removed just before the new content appears.
        needed: how many bytes there will be, where that is known; for the message when the disk is full.

    Raises:
        DataError: it cannot be written; what lay there before is unchanged.
        SpaceError: the disk is full; likewise.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_rests(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                with suppress(OSError):  # not every disk of a network has locks
                    fcntl.flock(file, fcntl.LOCK_EX)  # tells it from a rest
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            if outdated is not None:
                outdated.unlink(missing_ok=True)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _fsync_folder(path.parent)
    except OSError as error:
        raise not_written(path, error, needed) from None


def not_written(path: Path, error: OSError, needed: int | None = None, what: str | None = None) -> DataError:
    """The error that tells of a file or folder that cannot be written: a SpaceError where the disk is full.

    Args:
        needed: how many bytes there would be.
        what: what cannot be done, in words, if not that `path` cannot be written.
    """
    what = what or f"{path} cannot be written"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return DataError(f"{what}: {error.strerror or error}.")
    need = f"{needed:,} bytes are needed, " if needed is not None else ""
    return SpaceError(f"{what}: {error.strerror}: {need}{_free(path):,} are free. {_MAKE_SPACE}")


def check_space(path: Path, needed: int) -> None:
    """Raises SpaceError where `needed` more bytes would not fit on the disk that is to hold `path`."""
    free = _free(path)
    if needed > free:
        raise SpaceError(f"{path} needs {needed:,} bytes, {free:,} are free on its disk. {_MAKE_SPACE}")


def _free(path: Path) -> int:
    """The free bytes of the disk that is to hold `path`, which need not exist yet."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def _remove_rests(path: Path) -> None:
    """Removes what processes that were killed left of `path`: temporary files that nobody has locked."""
    for rest in path.parent.glob(f".{glob.escape(path.name)}.{'?' * 8}"):
        with suppress(OSError), rest.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            rest.unlink()


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically; a number that is not finite raises ValueError before anything is written."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
