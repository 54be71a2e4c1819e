"""The sources of pairs behind one interface: an entry of `datasets` in params.yaml to the pairs of a split."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from derain.console import say
from derain.data import benchmark, pairs, photographs, rendered
from derain.data.benchmark import BENCHMARKS
from derain.data.pack import write_pack
from derain.data.rain import KINDS
from derain.disk import paths
from derain.params import Benchmark, Data, DataSet, Folders, Mix, Pairs, Params, Rendered
from derain.types import DataError, Pair, ParamsError

SplitName = Literal["train", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "test")
TEST_SEED = 0
"""Of the rain on test pictures."""


@dataclass(frozen=True)
class Split:
    """A split of a data set: its pairs, the stride of its grid of patches (None: the patch), and whether each pair
    comes flipped too."""

    pairs: Iterable[Pair]
    stride: int | None = None
    flip: bool = False


def pack_set(name: str, definition: DataSet, folder: Path, data: Data, seed: int) -> None:
    """Packs every split that a data set has into `folder`; see `derain.data.pack`.

    Raises:
        DataError: files are missing, unpaired or damaged.
        ParamsError: the definition names what does not exist.
    """
    splits = {split: split_of(definition, split, data, seed) for split in SPLITS}
    described = definition.model_dump(exclude_none=True)
    with _new_folder(folder) as packed:
        for split, content in splits.items():
            if content is None:
                continue
            say(f"{name}: packing the {split} split")
            write_pack(packed, split, content.pairs, stride=content.stride, flip=content.flip, description=described)


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


def check_sets(params: Params) -> None:
    """Checks that every set's kind or name exists, and that the stream and the tests use splits which the sets have.

    Raises:
        ParamsError: naming the key, the value and what is allowed.
    """
    for name, definition in params.datasets.items():
        for part in _parts(definition):
            if isinstance(part, Rendered) and part.kind not in KINDS:
                raise ParamsError(
                    f"params.yaml: datasets.{name}.kind: {part.kind!r} is no kind of rain. Allowed: {', '.join(KINDS)}."
                )
            if isinstance(part, Benchmark) and part.set not in BENCHMARKS:
                known = ", ".join(BENCHMARKS)
                raise ParamsError(f"params.yaml: datasets.{name}.set: {part.set!r} is no benchmark. Allowed: {known}.")
    for task in params.tasks:
        key = "task0.dataset" if task.after is None else f"stream.{task.key}.dataset"
        if not _has(params.datasets[task.dataset], "train"):
            raise ParamsError(f"params.yaml: {key}: {task.dataset!r} has no training split. It can only be tested on.")
        for test, role in params.tests.items():
            tested = _parts(params.datasets[test])
            if role == "unseen" and any(part in tested for part in _parts(params.datasets[task.dataset])):
                raise ParamsError(
                    f"params.yaml: {key}: {task.dataset!r} is learned, so tests.{test} must be learned too."
                )
    for test in params.tests:
        if not _has(params.datasets[test], "test"):
            raise ParamsError(f"params.yaml: tests.{test}: the set has no test split. It can only be learned.")


def _parts(definition: DataSet) -> list[Rendered | Benchmark | Pairs]:
    return definition.of if isinstance(definition, Mix) else [definition]


def _has(definition: DataSet, split: SplitName) -> bool:
    for part in _parts(definition):
        owner = BENCHMARKS[part.set] if isinstance(part, Benchmark) else part
        if isinstance(part, Rendered) or getattr(owner, split) is not None:
            return True
    return False


def split_of(definition: DataSet, name: SplitName, data: Data, seed: int) -> Split | None:
    """A split of the set that `definition` describes, or None where the set has no such split.

    Raises:
        DataError: files are missing, unpaired or damaged.
        ParamsError: the definition names what does not exist.
    """
    match definition:
        case Rendered():
            return Split(_rendered(definition, name, data, seed))
        case Benchmark():
            return _benchmark(definition, name)
        case Pairs():
            folders = getattr(definition, name)
            return Split(_paired(folders)) if folders else None
        case Mix():
            return _mixed([split_of(part, name, data, seed) for part in definition.of])


def _rendered(definition: Rendered, name: SplitName, data: Data, seed: int) -> Iterator[Pair]:
    if data.photos == "builtin":
        clean = photographs.builtin_photographs()
    else:
        clean = photographs.folder_photographs(Path(data.photos), data.test_share)
    if name == "test":
        # The same pictures for every seed, so that runs differ by what was trained; one rain a picture.
        seed, rains = TEST_SEED, 1
    else:
        rains = data.rains_per_photo
    return rendered.rendered_pairs(
        name, kinds=[definition.kind], photographs=clean, seed=seed, rains_per_photograph=rains
    )


def _benchmark(definition: Benchmark, name: SplitName) -> Split | None:
    published = benchmark.find_benchmark(definition.set)
    if getattr(published, name) is None:
        return None
    folder = benchmark.obtain(
        definition.set,
        url=definition.url,
        gdrive=definition.gdrive,
        archive=Path(definition.archive) if definition.archive else None,
        folder=Path(definition.folder) if definition.folder else None,
        sha256=definition.sha256,
        cache=paths.cache(),
    )
    flip = published.flip and name == "train"
    return Split(benchmark.benchmark_pairs(definition.set, folder, name), published.stride, flip)


def _paired(folders: Folders) -> Iterable[Pair]:
    return pairs.read_pairs(pairs.folder_pairs(Path(folders.rainy), Path(folders.clean)))


def _mixed(parts: list[Split | None]) -> Split | None:
    """All pairs of the parts, names numbered by part; where their grids differ, the widest stride holds for all."""
    present = [part for part in parts if part is not None]
    if not present:
        return None
    strides = [part.stride for part in present if part.stride is not None]
    return Split(_numbered(present), max(strides, default=None))


def _numbered(parts: list[Split]) -> Iterator[Pair]:
    for number, part in enumerate(parts):
        for name, rainy, clean in part.pairs:
            yield Pair(f"{number}-{name}", rainy, clean)
            if part.flip:
                yield Pair(f"{number}-{name}-flipped", rainy[:, ::-1], clean[:, ::-1])
