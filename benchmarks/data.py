"""Reading crops from a packed set: crops a second, and their share of a training step."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks import _measure
from benchmarks._measure import Result
from benchmarks.training_step import crops, networks, step
from derain import console
from derain.data.pack import Pack, write_pack
from derain.training import pixels
from derain.types import Pair

PAIRS = 100


def main() -> None:
    chosen = _measure.arguments("data", __doc__, batch=18, patch=100)
    where = _measure.hardware(chosen)
    rng = np.random.default_rng(0)
    with packed() as pack:
        batches = 50

        def read() -> None:
            for _ in range(batches):
                pixels.crops(pack, pack.random(rng, chosen.batch, chosen.patch), chosen.patch, where.device)

        works: dict[str, _measure.Work] = {"crops": read}
        if not chosen.ours_only:
            works["step"] = step(
                networks(where.device)[0], crops(chosen.batch, chosen.patch, where.device), where, distilled=False
            )
        seconds = _measure.interleaved(works, chosen.steps)
    a_batch = [value / batches for value in seconds["crops"]]
    if chosen.ours_only:
        _measure.ours_only(chosen, a_batch)
        return
    result = Result(f"data, {chosen.precision}", vars(chosen) | {"json": None})
    result.facts = {
        "pairs of crops a second": chosen.batch / statistics.median(a_batch),
        "share of a training step": statistics.median(a_batch) / statistics.median(seconds["step"]),
    }
    _measure.finish(chosen, result)


@contextmanager
def packed(pairs: int = PAIRS, height: int = 321, width: int = 481) -> Iterator[Pack]:
    """A packed set of noise pairs."""
    rng = np.random.default_rng(0)
    pictures = (rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8) for _ in range(pairs))
    with tempfile.TemporaryDirectory() as folder:
        console.out.quiet = True
        write_pack(Path(folder), "train", (Pair(str(n), *both) for n, both in enumerate(pictures)))
        console.out.quiet = False
        yield Pack.open(Path(folder), "train")


if __name__ == "__main__":
    main()
