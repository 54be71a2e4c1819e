"""Downloads from a server that cuts, stalls on its answers, changes the file or sends something else.

A download ends with the very file or with one line that says what to do, and then there is no file; a later one goes on
from what came, if it is of the same file. A program that is killed between two attempts is a download that is given up.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from derain import console
from derain.data.fetch import RETRIES, download
from derain.types import DataError
from torture._figures import Figures
from torture._server import CONTENT, FATAL, RECOVERED, Handler, Server, answer, chunked, cut, hang_up, serving

COUNT = 280

_Case = Callable[[Server, Path, random.Random], Iterator[str]]


def run(seed: int, count: int) -> Figures:
    rng = random.Random(seed)  # noqa: S311 - no secret
    counts: Counter[str] = Counter()
    faults: list[str] = []
    quiet = console.out.quiet, console.err.quiet
    console.out.quiet = console.err.quiet = True
    try:
        for number in range(count):
            what = list(_CASES)[number % len(_CASES)]
            with serving() as server, tempfile.TemporaryDirectory() as folder:
                server.ranges = rng.random() < 0.8
                faults += [f"{what} {number}: {fault}" for fault in _CASES[what](server, Path(folder), rng)]
            counts[what] += 1
    finally:
        console.out.quiet, console.err.quiet = quiet
    return Figures(counts, faults)


def _passing(rng: random.Random) -> list[Callable[[Handler], None]]:
    """What the next requests meet, no more of it than a download tries again."""
    kinds: list[Callable[[], Callable[[Handler], None]]] = [
        lambda: cut(rng.randrange(len(CONTENT))),
        lambda: answer(rng.choice((408, 429, 500, 502, 503, 504))),
        lambda: hang_up,
        lambda: chunked(whole=False),
        lambda: rng.choice([fault for faults in RECOVERED.values() for fault in faults]),
    ]
    return [rng.choice(kinds)() for _ in range(rng.randint(1, RETRIES))]


def _overcome(server: Server, folder: Path, rng: random.Random) -> Iterator[str]:
    server.faults = _passing(rng)
    yield from _ends_well(server, folder)


def _given_up_and_resumed(server: Server, folder: Path, rng: random.Random) -> Iterator[str]:
    server.always = cut(rng.randrange(1, len(CONTENT)) // (RETRIES + 1))
    yield from _fails(server, folder, "run it again to resume")
    server.always = None
    before = len(server.requests)
    yield from _ends_well(server, folder)
    if server.ranges and "Range" not in server.requests[before]:
        yield "began anew"


def _another_version(server: Server, folder: Path, rng: random.Random) -> Iterator[str]:
    server.always = cut(rng.randrange(1, len(CONTENT)) // (RETRIES + 1))
    yield from _fails(server, folder, "run it again to resume")
    server.always = None
    server.content, server.etag = CONTENT[::-1], '"v2"'
    server.faults = [cut(rng.randrange(len(CONTENT)))]
    yield from _ends_well(server, folder)


def _another_file(server: Server, folder: Path, rng: random.Random) -> Iterator[str]:
    """The file has another checksum than it should have, by one bit."""
    content = bytearray(CONTENT)
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    server.faults = _passing(rng)[:1]
    expected, server.content = hashlib.sha256(CONTENT).hexdigest(), bytes(content)
    yield from _fails(server, folder, "sha256 is", expected)


def _lasting(server: Server, folder: Path, rng: random.Random) -> Iterator[str]:
    server.always = FATAL[rng.choice(sorted(FATAL))][0]
    yield from _fails(server, folder, server.address)


def _ends_well(server: Server, folder: Path) -> Iterator[str]:
    target = folder / "set.zip"
    try:
        download(f"{server.address}/set.zip", target, hashlib.sha256(server.content).hexdigest())
    except DataError as error:
        yield f"failed: {error}"
        return
    if target.read_bytes() != server.content:
        yield "another file than the server's"
    if [file.name for file in folder.iterdir()] != ["set.zip"]:
        yield "left something beside the file"


def _fails(server: Server, folder: Path, told: str, sha256: str | None = None) -> Iterator[str]:
    try:
        download(f"{server.address}/set.zip", folder / "set.zip", sha256)
        yield "was taken for the file"
    except DataError as error:
        if told not in str(error) or len(str(error).splitlines()) != 1:
            yield f"says {error}"
    if (folder / "set.zip").exists():
        yield "left a file"


_CASES: dict[str, _Case] = {
    "faults that pass": _overcome,
    "given up, then resumed": _given_up_and_resumed,
    "resumed when the file has changed": _another_version,
    "a file that is another by a bit": _another_file,
    "faults that last": _lasting,
}
