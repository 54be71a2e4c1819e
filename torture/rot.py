"""Flipped bits in models, masks, memories, traces, packs, their descriptions and states: each is noticed on reading."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from derain.data.pack import Pack
from derain.disk import artifacts, networks, paths
from derain.training.resume import KeptState
from derain.types import DataError
from torture._figures import Figures
from torture._folder import small_folder
from torture.numbers import SMALL

COUNT = 2000

_STATE = Path("state of a training")


def run(seed: int, count: int) -> Figures:
    rng = random.Random(seed)  # noqa: S311 - no secret
    counts: Counter[str] = Counter()
    faults: list[str] = []
    with small_folder() as folder:
        folder.write_params(SMALL)
        folder.write_artifacts()
        KeptState(_STATE).save(b"what was computed so far")
        for what, (path, is_noticed) in itertools.islice(itertools.cycle(_READERS.items()), count):
            place = _flip(path, rng)
            counts[f"in a {what}"] += 1
            if is_noticed(path):
                counts["noticed"] += 1
            else:
                faults.append(f"{path}: a flipped bit at byte {place[0]} was not noticed")
            _flip(path, rng, place)
    return Figures(counts, faults)


def _flip(path: Path, rng: random.Random, place: tuple[int, int] | None = None) -> tuple[int, int]:
    """Flips a bit of the file where it lies, at random or at the place (byte, bit) that is given; returns the place."""
    content = bytearray(path.read_bytes())
    byte, bit = place or (rng.randrange(len(content)), rng.randrange(8))
    content[byte] ^= 1 << bit
    path.write_bytes(content)
    return byte, bit


def _refused(read: Callable[[], object]) -> bool:
    try:
        read()
    except DataError:
        return True
    return False


def _state_is_noticed(path: Path) -> bool:
    return KeptState(path.parent).load() is None


def _pack_is_noticed(_: Path) -> bool:
    return _refused(lambda: Pack.open(paths.DATA / "heavy", "train"))


_READERS: dict[str, tuple[Path, Callable[[Path], bool]]] = {
    "model": (paths.model("task1"), lambda path: _refused(lambda: networks.load_network(path))),
    "mask": (paths.mask("task1"), lambda path: _refused(lambda: artifacts.load(path))),
    "memory": (paths.memory("task1"), lambda path: _refused(lambda: artifacts.load(path))),
    "trace": (paths.trace("task1"), lambda path: _refused(lambda: artifacts.load(path))),
    "pack": (paths.DATA / "heavy/train.pack", _pack_is_noticed),
    "description of a pack": (paths.DATA / "heavy/train.json", _pack_is_noticed),
    "state": (_STATE / "state", _state_is_noticed),
}
