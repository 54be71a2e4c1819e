"""The field's data sets: where they are published, how their files lie, and the pairs in them.

Layouts and names come from the sets' own pages and from the code that reads them (csdwren/PReNet, DerainDataset.py and
statistic/; hezhangsprinter/ID-CGAN, readme; stevewongv/SPANet, readme; swz30/Restormer, Deraining/). A set is found
anywhere below a folder by its folders' names. Where copies differ, each variant is taken:

- rainy pictures in rain/, rainy/, rainy_image/ or input/, clean ones in norain/, clean/, gt/, ground_truth/ or
  target/ beside it, or clean ones one folder above, or all in one folder;
- one folder for each split, with the set's own name for it (RainTrainH) or as train/ and test/ in a folder named as
  the set; Rain14000 also undivided, then by number as PReNet does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import numpy as np

from derain.console import say, warn
from derain.data.archives import unpack
from derain.data.fetch import download, gdrive_url
from derain.data.pairs import PairFiles, PairReader, Side, folder_pairs, joined_pairs, read_pairs
from derain.data.pictures import list_pictures
from derain.disk.atomic import sha256_of
from derain.types import DataError, Pair, ParamsError, Role

_RAINY_FOLDERS = ("rainy", "rain", "rainy_image", "rainy image", "input")
_CLEAN_FOLDERS = ("norain", "clean", "gt", "ground_truth", "ground truth", "groundtruth", "target")
_SPLIT_FOLDERS: Mapping[Role, tuple[str, ...]] = {"train": ("train", "training"), "test": ("test", "testing")}
_DEPTH = 6


@dataclass(frozen=True)
class PublishedSplit:
    """One split of a benchmark.

    Attributes:
        pairs: how many it has.
        layout: its first publisher's layout, for messages.
        folders: what the folder that holds only this split is called, in small letters.
        numbers: which numbers belong to it where both splits lie in one folder.
        spare_clean: it has clean pictures whose rainy ones were taken out.
    """

    pairs: int
    layout: str
    folders: tuple[str, ...] = ()
    numbers: range | None = None
    spare_clean: bool = False


@dataclass(frozen=True)
class Benchmark:
    """A published data set.

    Attributes:
        name: as in the paper.
        published: where to fetch it by hand.
        folders: what a folder with the whole set, or its test split, is called, in small letters.
        train: None where the project only tests on it.
        test: the split that the papers score.
        stride: of the training patches, in pixels; None: the patch size.
        flip: each training pair is used a second time, mirrored (PReNet, for RainTrainL only).
        rainy_side: which half is the rainy one, where a pair is one picture.
    """

    name: str
    published: str
    folders: tuple[str, ...]
    train: PublishedSplit | None
    test: PublishedSplit
    stride: int | None = None
    flip: bool = False
    rainy_side: Side | None = None

    def split(self, split: Role) -> PublishedSplit:
        """The named split; DataError where there is none."""
        chosen = self.train if split == "train" else self.test
        if chosen is None:
            raise DataError(f"{self.name} has no {split} split here: it only serves for testing")
        return chosen


_YANG = (
    "https://1drv.ms/f/s!AqLfQqtZ6GwGgep-hgjLxkov2SSZ3g or https://pan.baidu.com/s/1J0q6Mrno9aMCsaWZUtmbkg "
    "(see github.com/csdwren/PReNet)"
)

BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        benchmark.name: benchmark
        for benchmark in (
            Benchmark(
                name="Rain100H",
                published=_YANG,
                folders=("rain100h",),
                train=PublishedSplit(
                    pairs=1254,  # of 1,800; the other 546 show scenes of the test set (csdwren/PReNet, readme)
                    layout="RainTrainH/rain-N.png with norain-N.png",
                    folders=("raintrainh", "rain_data_train_heavy", "rain_heavy_train"),
                    spare_clean=True,
                ),
                test=PublishedSplit(
                    pairs=100,
                    layout="Rain100H/rainy/rain-NNN.png with Rain100H/norain-NNN.png",
                    folders=("rain_data_test_heavy", "rain_heavy_test"),
                ),
                stride=80,
            ),
            Benchmark(
                name="Rain100L",
                published=_YANG,
                folders=("rain100l",),
                train=PublishedSplit(
                    pairs=200,
                    layout="RainTrainL/rain-N.png with norain-N.png",
                    folders=("raintrainl", "rain_data_train_light", "rain_light_train"),
                ),
                test=PublishedSplit(
                    pairs=100,
                    layout="Rain100L/rainy/rain-NNN.png with Rain100L/norain-NNN.png",
                    folders=("rain_data_test_light", "rain_light_test"),
                ),
                stride=80,
                flip=True,
            ),
            Benchmark(
                name="Rain800",
                published="https://github.com/hezhangsprinter/ID-CGAN",
                folders=("rain800",),
                train=PublishedSplit(pairs=700, layout="rain/training/*.jpg, clean half left, rainy half right"),
                test=PublishedSplit(
                    pairs=100,
                    layout="rain/test_syn/*.jpg, clean half left, rainy half right",
                    folders=("test_syn", "test100"),
                ),
                stride=80,  # PReNet never used it; as biubiubiiu/derain-toolbox, configs/prenet
                rainy_side="right",  # ID-CGAN trains it "BtoA"; XiaLiPKU/RESCAN's reader takes the right half too
            ),
            Benchmark(
                name="Rain14000",
                published="https://xmu-smartdsp.github.io/",
                folders=("rain14000", "rain1400", "rainy_image_dataset"),
                train=PublishedSplit(
                    pairs=12_600,
                    layout="rainy_image_dataset/training/{rainy_image/N_1.jpg ... N_14.jpg, ground_truth/N.jpg}",
                    folders=("rain12600",),
                    numbers=range(1, 901),
                ),
                test=PublishedSplit(
                    pairs=1_400,
                    layout="rainy_image_dataset/testing/{rainy_image/N_1.jpg ... N_14.jpg, ground_truth/N.jpg}",
                    numbers=range(901, 1001),
                ),
                stride=100,
            ),
            Benchmark(
                name="SPA-Data",
                published="https://stevewongv.github.io/derain-project.html",
                folders=("spa-data", "spa_data", "spadata", "spa"),
                train=None,
                test=PublishedSplit(
                    pairs=1_000, layout="real_test_1000/{rain/NNN.png, gt/NNNgt.png}", folders=("real_test_1000",)
                ),
            ),
        )
    }
)


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of this name, whatever its letters' case; ParamsError, with the names there are, if none is."""
    for benchmark in BENCHMARKS.values():
        if benchmark.name.casefold() == name.casefold():
            return benchmark
    raise ParamsError(f"benchmark: {name!r} is not known; there are {', '.join(BENCHMARKS)}")


def benchmark_pairs(name: str, folder: Path, split: Role) -> PairReader:
    """The pairs of a benchmark's split, wherever below `folder` it lies; says where, and warns if the number is odd.

    Raises:
        ParamsError: no such benchmark.
        DataError: nothing found (names where to fetch it and how it must lie), or pictures that do not pair up.
    """
    benchmark = find_benchmark(name)
    wanted = benchmark.split(split)
    for place in _places(benchmark, split, folder):
        pairs = _pairs_in(place, benchmark, wanted)
        if pairs is not None:
            say(f"{benchmark.name} {split}: {len(pairs)} pairs in {place}")
            _check_number(benchmark, split, len(pairs))
            return pairs
    raise DataError(
        f"{benchmark.name}: no {split} pictures below {folder}: fetch them by hand from {benchmark.published}\n"
        f"and unpack them there, so that they lie as {wanted.layout}"
    )


def _places(benchmark: Benchmark, split: Role, folder: Path) -> list[Path]:
    """Folders whose names promise this split, the plainest promise first, then the one nearest to `folder`."""
    ranked = []
    for place in _walk(folder):
        parts = [part.casefold() for part in place.relative_to(folder).parts] or [folder.resolve().name.casefold()]
        rank = _rank(benchmark, split, parts)
        if rank is not None:
            ranked.append((rank, place))
    return [place for _, place in sorted(ranked, key=lambda entry: entry[0])]


def _walk(folder: Path) -> Iterator[Path]:
    """`folder` and the folders below it, level by level; links are followed, to a limited depth."""
    level = [folder] if folder.is_dir() else []
    for _ in range(_DEPTH):
        yield from level
        level = [below for place in level for below in _folders_in(place)]


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read as a folder: {error.strerror}") from None


def _rank(benchmark: Benchmark, split: Role, parts: Sequence[str]) -> int | None:
    """How plainly a path (in small letters) promises the split: 0 most, None not at all."""
    wanted = benchmark.split(split)
    if _foreign_folders(benchmark).intersection(parts):
        return None
    if parts[-1] in wanted.folders:
        return 0
    if parts[-1] in benchmark.folders:
        said = next(filter(None, map(_split_said_by, reversed(parts))), None)
        undivided = said is None and (split == "test" or wanted.numbers is not None)
        return 1 if said == split or undivided else None
    return 2 if parts[-1] in _SPLIT_FOLDERS[split] else None


def _foreign_folders(benchmark: Benchmark) -> set[str]:
    return {
        name
        for other in BENCHMARKS.values()
        if other is not benchmark
        for split in (other.train, other.test)
        for name in (*other.folders, *(split.folders if split else ()))
    }


def _split_said_by(part: str) -> Role | None:
    if "train" in part:
        return "train"
    return "test" if "test" in part or part.startswith("val") else None


def _pairs_in(place: Path, benchmark: Benchmark, split: PublishedSplit) -> PairReader | None:
    """The pairs that lie directly in `place` or in its folders for rainy and clean pictures; None if there are none."""
    below = {path.name.casefold(): path for path in _folders_in(place)}
    rainy = next((below[name] for name in _RAINY_FOLDERS if name in below), None)
    clean = next((below[name] for name in _CLEAN_FOLDERS if name in below), place)
    if clean is place and not list_pictures(place):
        return None
    if rainy is None and clean is place and benchmark.rainy_side is not None:
        return _joined(place, benchmark.name, benchmark.rainy_side)
    if rainy is not None and (rainy / "X2").is_dir():  # Rain100H and L as changed by their authors
        rainy = rainy / "X2"
    files = folder_pairs(rainy or place, clean, spare_clean=split.spare_clean)
    undivided = place.name.casefold() in benchmark.folders
    return read_pairs(_numbered(files, split.numbers) if undivided and split.numbers else files)


def _numbered(files: Sequence[PairFiles], numbers: range) -> list[PairFiles]:
    """Those of Rain14000's pairs (N_1 ... N_14) whose N is among `numbers`."""
    return [pair for pair in files if (number := re.match("[0-9]+", pair.name)) and int(number[0]) in numbers]


def _joined(place: Path, name: str, rainy_side: Side) -> PairReader:
    pairs = joined_pairs(place, rainy_side)
    sample = [_detail(pair) for pair in islice(pairs, 9)]
    if np.median(sample) < 0:
        warn(f"{name}: in {place} the {rainy_side} halves look cleaner than the others, though they should be rainy")
    return pairs


def _detail(pair: Pair) -> float:
    """How much more the rainy picture varies from column to column than the clean one; streaks add to it."""
    rainy, clean = (np.abs(np.diff(picture.astype(np.int16), axis=1)).mean() for picture in (pair.rainy, pair.clean))
    return float(rainy - clean)


def _check_number(benchmark: Benchmark, split: Role, number: int) -> None:
    expected = benchmark.split(split).pairs
    if benchmark.name == "Rain100H" and split == "train" and number == 1800:
        warn(
            f"Rain100H train: 546 of these pictures show scenes of the test set; PReNet trains on the other {expected}"
        )
    elif number != expected:
        warn(f"{benchmark.name} {split}: {number} pairs, the published set has {expected}")


def obtain(
    name: str,
    *,
    url: str | None = None,
    gdrive: str | None = None,
    archive: Path | None = None,
    folder: Path | None = None,
    sha256: str | None = None,
    cache: Path,
) -> Path:
    """A folder to read a data set from, out of exactly one source.

    A download is unpacked below `cache/<name>` and then deleted; an archive on the disk is unpacked there too. Asked
    again for the same source, the folder that is there is returned at once.

    Args:
        name: the data set's name in params.yaml.
        url: http or https address of an archive.
        gdrive: id of an archive on Google Drive.
        archive: a zip or tar file.
        folder: an unpacked folder, read where it is.
        sha256: checksum of the archive.
        cache: folder for what is fetched and unpacked.

    Raises:
        ParamsError: no source or more than one, or a checksum for a folder or of a wrong form.
        DataError: a source that is missing, cannot be fetched, has another checksum or cannot be unpacked.
    """
    sources = {"url": url, "gdrive": gdrive, "archive": archive, "folder": folder}
    given = [key for key, value in sources.items() if value]
    if len(given) != 1:
        what = f"not {' and '.join(given)}" if given else "none is given"
        raise ParamsError(f"{name}: name exactly one of {', '.join(sources)}: {what}{_hint(name)}")
    if folder:
        return _existing_folder(name, folder, sha256)
    if sha256 is not None and not re.fullmatch("[0-9A-Fa-f]{64}", sha256):
        raise ParamsError(f"{name}: sha256 must be 64 hexadecimal digits, not {sha256!r}")
    if archive:
        return _from_archive(name, archive, sha256, cache)
    return _from_web(name, url or gdrive_url(gdrive or ""), sha256, cache)


def _hint(name: str) -> str:
    known = {benchmark.name.casefold(): benchmark for benchmark in BENCHMARKS.values()}.get(name.casefold())
    return f"; it is published at {known.published}" if known else ""


def _existing_folder(name: str, folder: Path, sha256: str | None) -> Path:
    if sha256 is not None:
        raise ParamsError(f"{name}: sha256 is the checksum of an archive: it cannot go with `folder`")
    if not folder.is_dir():
        raise DataError(
            f"{name}: folder {folder} does not exist; unpack the data set there or correct `folder`{_hint(name)}"
        )
    return folder


def _from_archive(name: str, archive: Path, sha256: str | None, cache: Path) -> Path:
    if not archive.is_file():
        raise DataError(f"{name}: archive {archive} is not a file; put it there or correct `archive`{_hint(name)}")
    state = archive.stat()
    unpacked = _place(cache, name, [str(archive.resolve()), state.st_size, state.st_mtime_ns, sha256])
    if not unpacked.is_dir():
        if sha256 is not None and (digest := sha256_of(archive)) != sha256.lower():
            raise DataError(f"{archive}: sha256 is {digest}, expected {sha256}: correct the checksum or fetch it again")
        unpack(archive, unpacked)
    return unpacked


def _from_web(name: str, url: str, sha256: str | None, cache: Path) -> Path:
    unpacked = _place(cache, name, [url, sha256])
    if not unpacked.is_dir():
        fetched = unpacked.with_suffix(".download")
        download(url, fetched, sha256)
        unpack(fetched, unpacked)
        fetched.unlink()
    return unpacked


def _place(cache: Path, name: str, source: Sequence[object]) -> Path:
    """Where the content of a source lies; another source has another place, so none is taken for the other."""
    return cache / name / hashlib.sha256(json.dumps(source).encode()).hexdigest()[:12]
