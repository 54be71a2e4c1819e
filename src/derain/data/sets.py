"""Data sets: the entries of `datasets` in params.yaml, their sources, and packing them."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from derain import plugins
from derain.console import say
from derain.data.pack import write_pack
from derain.data.source import Source
from derain.disk import paths
from derain.params import Data, Entry, Params, parts, read_entry, sources
from derain.types import DataError, Pair, ParamsError

_UNPAIRED = "Its pictures have no clean ones. Mix it with a set of pairs."


def source_of(entry: Entry, key: str, data: Data, seed: int) -> Source:
    """The source of an entry; ParamsError, beginning with its `key`, where it is none."""
    params = read_entry(entry, key)
    source: Source = plugins.load("sources", entry["source"]).Source(params, data, seed)
    return source


def code_of(entry: Entry) -> dict[str, str]:
    """The SHA-256 of the files of all sources that make an entry, by name."""
    return {
        name: hashlib.sha256(plugins.file("sources", name).read_bytes()).hexdigest() for name in sorted(sources(entry))
    }


def pack_set(name: str, entry: Entry, folder: Path, data: Data, seed: int) -> None:
    """Packs all that a data set has into `folder`, by role; see `derain.data.pack`.

    Raises:
        DataError: files are missing, unpaired or damaged, or an unlabelled picture comes with a clean one.
        ParamsError: the entry names what does not exist.
    """
    source = source_of(entry, f"params.yaml: datasets.{name}", data, seed)
    source.check(f"params.yaml: datasets.{name}")
    with _new_folder(folder) as packed:
        for role in source.roles:
            say(f"{name}: packing the {role} split")
            split = source.split(role)
            pairs = _without_partners(split.pairs, name) if role == "unlabelled" else split.pairs
            described = _without_none(entry)
            write_pack(packed, role, pairs, stride=split.stride, flip=split.flip, description=described)


def _without_partners(pairs: Iterable[Pair], name: str) -> Iterator[Pair]:
    for pair in pairs:
        if not np.array_equal(pair.rainy, pair.clean):
            raise DataError(
                f"{name}: the unlabelled picture {pair.name!r} comes with a clean one, which is not allowed."
            )
        yield pair


def _without_none(entry: Entry) -> dict[str, Any]:
    """An entry without keys that are null, at any depth."""

    def bare(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: bare(part) for key, part in value.items() if part is not None}
        return [bare(part) for part in value] if isinstance(value, list) else value

    return dict(bare(entry))


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder of that name elsewhere, which takes the place of `folder` when the block ends well."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for rest in folder.parent.glob(f".{folder.name}.*"):  # of a process that was killed
            shutil.rmtree(rest)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
            new = Path(beside) / folder.name
            yield new
            if folder.exists():
                shutil.rmtree(folder)
            new.replace(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}.") from None


def check_sets(params: Params) -> dict[str, Source]:
    """The sources of all sets: what they name exists, and the stream and the tests use roles which the sets have.

    Raises:
        ParamsError: naming the key, the value and what is allowed.
    """
    made = {}
    for name, entry in params.datasets.items():
        key = f"params.yaml: datasets.{name}"
        if paths.DATA / name == paths.VALIDATED:
            raise ParamsError(f"{key}: the name is taken: {paths.VALIDATED} is what validate writes. Choose another.")
        made[name] = source_of(entry, key, params.data, params.seed)
        made[name].check(key)
    for task in params.tasks:
        key = "task0.dataset" if task.after is None else f"stream.{task.key}.dataset"
        if "train" not in (roles := made[task.dataset].roles):
            use = "It can only be tested on." if "test" in roles else _UNPAIRED
            raise ParamsError(f"params.yaml: {key}: {task.dataset!r} has no training split. {use}")
        for test, role in params.tests.items():
            tested = parts(params.datasets[test])
            if role == "unseen" and any(part in tested for part in parts(params.datasets[task.dataset])):
                raise ParamsError(
                    f"params.yaml: {key}: {task.dataset!r} is learned, so tests.{test} must be learned too."
                )
    for test in params.tests:
        if "test" not in (roles := made[test].roles):
            use = "It can only be learned." if "train" in roles else _UNPAIRED
            raise ParamsError(f"params.yaml: tests.{test}: the set has no test split. {use}")
    return made
