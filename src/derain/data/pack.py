"""Packs: one split of a data set in two files that DVC can handle, read at random without decoding.

`<split>.pack` holds the raw pixels (uint8, row by row, RGB), one picture after the other, then the index: a table of
int64 (little-endian), five numbers a pair (height, width, offset of the rainy picture, offset of the clean one, 1 if
the pair is to be read mirrored), and the names, UTF-8, separated by NUL.
`<split>.json` describes it: format, where the index lies, stride, description, size and SHA-256 of the .pack.

Both files are a function of the pairs alone: the same pairs give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from derain.console import track
from derain.disk.atomic import new_file, sha256_of, write_atomically
from derain.types import DataError, Pair

FORMAT = 1

# How many pictures back an equal one is found again: Rain14000 has its 14 rains of a clean picture in a row.
_REMEMBERED = 4096


def write_pack(
    folder: Path,
    split: str,
    pairs: Iterable[Pair],
    *,
    stride: int | None = None,
    flip: bool = False,
    description: Mapping[str, object] | None = None,
) -> None:
    """Writes `<folder>/<split>.pack` and `.json`; both appear only when they are complete.

    Pairs are taken one by one, so memory does not grow with their pixels. Equal pictures (the clean one that 14 rainy
    pictures of Rain14000 share) are stored once.

    Args:
        folder: created if missing; its name is the data set's name in messages.
        split: a role: train, test or unlabelled.
        pairs: uint8 RGB pairs; both pictures of a pair have one size, different pairs may differ.
        stride: distance in pixels between the patches of `Pack.grid`; None: the patch size.
        flip: each pair is followed by its mirror image, left and right exchanged, as PReNet does with RainTrainL.
            Costs no space: the index says it.
        description: where the pairs come from, as JSON values; kept in the .json file.

    Raises:
        DataError: no pair at all, a pair whose pictures differ in size, a name that occurs twice, or no space left.
    """
    path, manifest_path = _paths(folder, split)
    # Without the old description removed, a reader between the two renames would find it beside the new pixels.
    with new_file(path, outdated=manifest_path) as file:
        writer = _Writer(file)
        for pair in track(pairs, f"packing {folder.name} {split}"):
            writer.add(pair, mirrored=False)
            if flip:
                writer.add(pair._replace(name=f"{pair.name}-flipped"), mirrored=True)
        if not writer.names:
            raise DataError(f"{folder.name}: its {split} set is empty: a set needs at least one pair of pictures")
        manifest = writer.finish() | {"format": FORMAT, "stride": stride, "description": dict(description or {})}
    write_atomically(manifest_path, _encode(manifest))


class Pack:
    """A pack that is open for reading; pixels stay on disk (memory map) until they are asked for.

    Attributes:
        path: the .pack file.
        sha256: its checksum.
        stride: distance in pixels between the patches of `grid`; None: the patch size.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self.sha256: str = manifest["sha256"]
        self.stride: int | None = manifest["stride"]
        self._bytes = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
        pixels, table = manifest["pixels"], manifest["table"]
        self._table = np.frombuffer(self._bytes[pixels : pixels + table].tobytes(), dtype="<i8").reshape(-1, 5)
        self._pixels, self._names_at = pixels, pixels + table
        heights, widths, rainy, clean, _ = self._table.T
        ends = np.maximum(rainy, clean) + heights * widths * 3
        self._shortest_side = self._table[:, :2].min()
        if self._shortest_side < 1 or self._table.min() < 0 or ends.max() > pixels:
            raise _damaged(path)

    @classmethod
    def open(cls, folder: Path, split: str) -> Self:
        """Opens the pack that `write_pack` wrote there, and verifies its checksum (about a second per GB).

        Raises:
            DataError: missing, damaged, or of another format; names the command that makes it again.
        """
        path, manifest_path = _paths(folder, split)
        manifest = _read_manifest(manifest_path)
        try:
            size = path.stat().st_size
        except OSError:
            raise _missing(path) from None
        if size != manifest["size"] or sha256_of(path) != manifest["sha256"]:
            raise _damaged(path)
        return cls(path, manifest)

    @staticmethod
    def is_there(folder: Path, split: str) -> bool:
        """Whether a split was packed there."""
        return _paths(folder, split)[0].exists()

    def __len__(self) -> int:
        return len(self._table)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The pairs' names in order, each once."""
        return tuple(self._bytes[self._names_at :].tobytes().decode().split("\0"))

    def pair(self, index: int) -> Pair:
        """The pair number `index` (from 0), copied from the file."""
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of a pack of {len(self)}")
        height, width, rainy_at, clean_at, mirrored = self._table[index].tolist()
        rainy, clean = np.empty((2, height, width, 3), dtype=np.uint8)
        _copy(self._picture(rainy_at, height, width), rainy, mirrored)
        _copy(self._picture(clean_at, height, width), clean, mirrored)
        return Pair(self.names[index], rainy, clean)

    def _picture(self, offset: int, height: int, width: int) -> np.ndarray:
        return self._bytes[offset : offset + height * width * 3].reshape(height, width, 3)

    def check_patch(self, patch: int) -> None:
        """Raises DataError if a picture is lower or narrower than `patch` pixels."""
        if patch <= self._shortest_side:
            return
        small = np.flatnonzero(self._table[:, :2].min(axis=1) < patch)
        height, width = self._table[small[0], :2]
        others = f", as are {small.size - 1} more" if small.size > 1 else ""
        raise DataError(
            f"{self.path}: picture '{self.names[small[0]]}' ({width}x{height}) is smaller than the patch "
            f"({patch}x{patch}){others}: choose a smaller `train.patch` or remove it from the set"
        )

    def grid(self, patch: int) -> np.ndarray:
        """Every patch at the set's stride: int64 array (M, 3) of (pair, top, left).

        Pair by pair, in each row by row, at range(0, size - patch + 1, stride): the patches of PReNet's `Im2Patch`
        (csdwren/PReNet, DerainDataset.py), in its order.

        Raises:
            DataError: see `check_patch`.
        """
        self.check_patch(patch)
        stride = self.stride or patch
        rows, columns = ((self._table[:, :2] - patch) // stride + 1).T
        counts = rows * columns
        pair = np.repeat(np.arange(len(self)), counts)
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.column_stack((pair, number // columns[pair] * stride, number % columns[pair] * stride))

    def random(self, rng: np.random.Generator, count: int, patch: int) -> np.ndarray:
        """`count` random patches, int64 array (count, 3) of (pair, top, left).

        Every pair is equally likely, and within it every position.

        Raises:
            DataError: see `check_patch`.
        """
        self.check_patch(patch)
        pair = rng.integers(0, len(self), count)
        corner = rng.integers(0, self._table[pair, :2] - patch + 1)
        return np.column_stack((pair, corner))

    def crops(self, positions: np.ndarray, patch: int) -> tuple[np.ndarray, np.ndarray]:
        """The patches at `positions`, rainy and clean: two uint8 arrays (N, patch, patch, 3), RGB.

        Args:
            positions: integers (N, 3) of (pair, top, left), as `grid` and `random` give them.
            patch: height and width in pixels.

        Raises:
            ValueError: a position outside its picture.
        """
        places = self._places(positions, patch)
        rainy, clean = np.empty((2, len(places), patch, patch, 3), dtype=np.uint8)
        for number, (top, left, height, width, rainy_at, clean_at, mirrored) in enumerate(places.tolist()):
            stored_left = width - patch - left if mirrored else left
            crop = (slice(top, top + patch), slice(stored_left, stored_left + patch))
            _copy(self._picture(rainy_at, height, width)[crop], rainy[number], mirrored)
            _copy(self._picture(clean_at, height, width)[crop], clean[number], mirrored)
        return rainy, clean

    @property
    def pixels(self) -> np.ndarray:
        """All pictures' pixels in one row, uint8 (M, 3), RGB; they stay on disk."""
        return self._bytes[: self._pixels].reshape(-1, 3)

    def spans(self, positions: np.ndarray, patch: int) -> np.ndarray:
        """Where in `pixels` the patches of `crops` lie, int64 array (N, 4).

        The number of the rainy patch's first pixel and of the clean one's, and how far on the next row and the next
        column are; columns go backwards in mirrored pairs.
        """
        top, left, _, width, rainy_at, clean_at, mirrored = self._places(positions, patch).T
        first = top * width + np.where(mirrored, width - 1 - left, left)
        return np.column_stack((rainy_at // 3 + first, clean_at // 3 + first, width, np.where(mirrored, -1, 1)))

    def _places(self, positions: np.ndarray, patch: int) -> np.ndarray:
        """Top, left, and the pair's row of the table, for each position; int64 (N, 7)."""
        positions = np.asarray(positions, dtype=np.int64).reshape(-1, 3)
        pair, corner = positions[:, 0], positions[:, 1:]
        if pair.size and not 0 <= pair.min() <= pair.max() < len(self):
            raise ValueError(f"positions name pairs outside 0..{len(self) - 1}")
        if (corner < 0).any() or (corner + patch > self._table[pair, :2]).any():
            raise ValueError(f"positions of {patch}x{patch} patches reach out of their pictures")
        return np.column_stack((corner, self._table[pair]))


def _copy(source: np.ndarray, target: np.ndarray, mirrored: int) -> None:
    """Copies a picture (H, W, 3), left and right exchanged if `mirrored`."""
    if not mirrored:
        target[:] = source
        return
    for channel in range(3):  # 3.5 times as fast as one copy of source[:, ::-1], whose inner loop has 3 bytes
        target[..., channel] = source[:, ::-1, channel]


class _Writer:
    """Appends pictures and keeps the index."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._size = 0
        self._known: OrderedDict[bytes, int] = OrderedDict()
        self._table = array("q")
        self.names: dict[str, None] = {}

    def add(self, pair: Pair, mirrored: bool) -> None:
        if pair.name in self.names or "\0" in pair.name:
            raise DataError(f"the name {pair.name!r} stands for two pairs: each pair of a set needs a name of its own")
        if pair.rainy.shape != pair.clean.shape:
            raise DataError(
                f"pair '{pair.name}': the rainy picture is {_size_text(pair.rainy)}, the clean one "
                f"{_size_text(pair.clean)}: both must have one size"
            )
        self._table.extend((*pair.rainy.shape[:2], self._store(pair.rainy), self._store(pair.clean), mirrored))
        self.names[pair.name] = None

    def _store(self, picture: np.ndarray) -> int:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"a picture is uint8 (height, width, 3), not {picture.dtype} {picture.shape}")
        content = np.ascontiguousarray(picture).data
        key = hashlib.blake2b(content, digest_size=16).digest()
        offset = self._known.pop(key, None)
        if offset is None:
            offset = self._size
            self._append(content)
        self._known[key] = offset
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return offset

    def _append(self, content: bytes | memoryview) -> None:
        self._file.write(content)
        self._digest.update(content)
        self._size += memoryview(content).nbytes

    def finish(self) -> dict[str, object]:
        """Writes the index; returns what the manifest says about it."""
        pixels = self._size
        table = np.array(self._table, dtype="<i8").tobytes()
        self._append(table)
        self._append("\0".join(self.names).encode())
        return {
            "pairs": len(self.names),
            "pixels": pixels,
            "table": len(table),
            "size": self._size,
            "sha256": self._digest.hexdigest(),
        }


def _size_text(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"


def _paths(folder: Path, split: str) -> tuple[Path, Path]:
    return folder / f"{split}.pack", folder / f"{split}.json"


def _encode(manifest: Mapping[str, object]) -> bytes:
    """JSON with a checksum of itself, so that no flipped bit in it goes unnoticed."""
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=False, allow_nan=False)
    checked = dict(manifest) | {"checksum": hashlib.sha256(text.encode()).hexdigest()}
    return (json.dumps(checked, sort_keys=True, ensure_ascii=False, indent=1) + "\n").encode()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError:
        raise _missing(path) from None
    try:
        manifest = json.loads(content)
        manifest.pop("checksum")
        intact = _encode(manifest) == content
    except (ValueError, KeyError, AttributeError):
        intact = False
    if not intact:
        raise _damaged(path)
    if manifest.get("format") != FORMAT:
        raise DataError(
            f"{path} has format {manifest.get('format')}, this version reads {FORMAT}: run `{_remake(path)}`"
        )
    return dict(manifest)


def _remake(path: Path) -> str:
    # --force, because DVC takes a read-only file for intact and would leave a rotten one as it is.
    return f"dvc repro --force download@{path.parent.name}"


def _missing(path: Path) -> DataError:
    return DataError(f"{path} is missing: run `dvc repro download@{path.parent.name}` or `dvc pull`")


def _damaged(path: Path) -> DataError:
    return DataError(f"{path} is damaged: run `{_remake(path)}` to make it again")
