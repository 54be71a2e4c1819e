"""Takes the rain off pictures: one is read and one is written while the network works on a third."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from PIL import Image

from derain.data.pictures import SUFFIXES
from derain.disk.atomic import write_atomically
from derain.restore.files import Job
from derain.restore.formats import Decoded, Levels, decode, encode, with_bits
from derain.types import DataError, DerainError

_AHEAD = 2
"""Pictures that are read ahead of the network, and that wait to be written: what bounds memory."""

T = TypeVar("T")
S = TypeVar("S")


class Restorer(Protocol):
    """What takes the rain off: see `derain.restore.network.Network.restore`."""

    def restore(self, rainy: Levels) -> Levels: ...


@dataclass(frozen=True)
class Outcome:
    """What became of a picture; `seconds` are the network's. `rainy` and `derained` are there while it is done."""

    job: Job
    status: Literal["done", "skipped", "failed"] = "done"
    rainy: Decoded | None = None
    derained: Decoded | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    error: DerainError | None = None

    def as_json(self) -> dict[str, Any]:
        """The entry of `derain run --json`."""
        entry: dict[str, Any] = {"input": str(self.job.rainy), "status": self.status}
        if self.error is not None:
            return entry | {"reason": str(self.error), "exit_code": self.error.exit_code}
        entry["output"] = str(self.job.derained)
        if self.job.compared is not None:
            entry["compared"] = str(self.job.compared)
        if self.derained is not None:
            height, width = self.derained.levels.shape[:2]
            entry |= {"width": width, "height": height, "bits": self.derained.bits}
            entry |= {"seconds": round(self.seconds, 3), "notes": list(self.notes)}
        return entry


def derain_files(
    jobs: Iterable[Job], network: Restorer, bits: int | None = None, skip_existing: bool = False
) -> Iterator[Outcome]:
    """Derains each picture into its file, and says of each what became of it, in order.

    A picture that fails leaves no file behind and does not keep the others from being done.

    Args:
        bits: 8 or 16 a channel in the outputs; None: as in the input.
        skip_existing: leaves pictures alone whose outputs are there already.
    """

    def read(job: Job) -> Outcome:
        if skip_existing and all(path.exists() for path in job[1:] if path):
            return Outcome(job, "skipped")
        return _step(Outcome(job), _read)

    def restore(outcome: Outcome) -> Outcome:
        assert outcome.rainy is not None
        began = time.perf_counter()
        derained = derain_picture(outcome.rainy, network, bits)
        return replace(outcome, derained=derained, seconds=time.perf_counter() - began)

    restored = (_step(outcome, restore) for outcome in _in_background(jobs, read))
    return _in_background(restored, lambda outcome: _step(outcome, _write))


def _step(outcome: Outcome, work: Callable[[Outcome], Outcome]) -> Outcome:
    if outcome.status != "done":
        return outcome
    try:
        return work(outcome)
    except DerainError as error:
        shown = str(error) if str(outcome.job.rainy) in str(error) else f"{outcome.job.rainy}: {error}"
        return Outcome(outcome.job, "failed", error=type(error)(shown))


def _in_background(items: Iterable[T], work: Callable[[T], S]) -> Iterator[S]:
    """Yields work(item) in order, done in another thread up to `_AHEAD` items ahead."""
    waiting = iter(items)
    with ThreadPoolExecutor(1) as thread:
        begun = deque(thread.submit(work, item) for item in islice(waiting, _AHEAD))
        while begun:
            # The next item comes before the wait for the oldest: it may take its time in this thread.
            begun.extend(thread.submit(work, item) for item in islice(waiting, 1))
            yield begun.popleft().result()


def _read(outcome: Outcome) -> Outcome:
    path = outcome.job.rainy
    if not path.is_file():
        raise DataError(f"{path} is no file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    try:
        rainy = decode(content)
    except DataError as error:
        raise DataError(f"{path} {error}") from None
    return replace(outcome, rainy=rainy, notes=rainy.notes)


def derain_picture(rainy: Decoded, network: Restorer, bits: int | None = None) -> Decoded:
    """The derained picture, of 8 or 16 `bits` a channel (None: as the rainy one); all else of it is as it was."""
    wanted = with_bits(rainy, bits or rainy.bits)
    return replace(wanted, levels=network.restore(wanted.levels))


def _write(outcome: Outcome) -> Outcome:
    assert outcome.rainy is not None
    assert outcome.derained is not None
    content, lost = encode(outcome.derained, SUFFIXES[outcome.job.derained.suffix.lower()])
    if outcome.job.compared is not None:
        write_atomically(outcome.job.compared, _side_by_side(outcome.rainy, outcome.derained))
    write_atomically(outcome.job.derained, content)
    return replace(outcome, notes=outcome.notes + lost)


def _side_by_side(rainy: Decoded, derained: Decoded) -> bytes:
    """Rainy on the left, derained on the right, as a JPEG."""
    encoded = io.BytesIO()
    Image.fromarray(np.concatenate((rainy.rgb8, derained.rgb8), axis=1)).save(encoded, "JPEG", quality=92)
    return encoded.getvalue()
