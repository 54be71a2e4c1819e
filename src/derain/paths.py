"""Every path of the pipeline, and how a file comes to lie under its name: complete or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from derain.types import DataError

DATA = Path("data")
VALIDATED = DATA / "validated"
RESULTS = Path("results")
SUMMARY = Path("metrics/summary.json")
RECORDED = Path("metrics/recorded.json")
REPORT = Path("report/index.html")
FORGETTING = Path("plots/forgetting.csv")


def model(task: str) -> Path:
    """The network after a task, e.g. models/task0.safetensors."""
    return Path("models") / f"{task}.safetensors"


def mask(task: str) -> Path:
    """The cumulative mask after a task, e.g. masks/task0.safetensors."""
    return Path("masks") / f"{task}.safetensors"


def memory(task: str) -> Path:
    """What the strategy stores after a task besides the mask, e.g. memory/task0.safetensors."""
    return Path("memory") / f"{task}.safetensors"


def trace(task: str) -> Path:
    """What a task's training left to be known of its way, e.g. traces/task0.safetensors."""
    return Path("traces") / f"{task}.safetensors"


def loss(task: str) -> Path:
    """The losses of each epoch of a task, e.g. plots/loss/task0.csv."""
    return Path("plots/loss") / f"{task}.csv"


def cache() -> Path:
    """Where downloads, unpacked archives and states stay: $DERAIN_CACHE, or ~/.cache/derain."""
    return Path(os.environ.get("DERAIN_CACHE") or Path.home() / ".cache" / "derain")


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that appears under its name only when it is complete and on disk.

    Raises:
        DataError: it cannot be written; what lay there before is unchanged.
    """
    with new_file(path) as file:
        file.write(content)


@contextmanager
def new_file(path: Path, outdated: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write into that appears under `path` when the block ends well, and not at all otherwise.

    Args:
        outdated: a file that describes what lay there before; it is removed just before the new content appears.

    Raises:
        DataError: it cannot be written; what lay there before is unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
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
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from None


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
