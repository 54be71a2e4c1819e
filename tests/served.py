"""`derain demo` in a thread of the tests, with a stand-in for the network."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from derain.demo import server
from derain.demo.weights import Choice
from derain.types import NumericError


class Stand:
    """Stands for a network: divides by a number that its file is named after; waits until it is allowed to work."""

    def __init__(self, path: Path) -> None:
        self.divisor = int(path.stem.removeprefix("by"))
        self.allowed = threading.Event()
        self.allowed.set()
        self.at_work = 0
        self.most_at_work = 0

    def restore(self, rainy: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            assert self.allowed.wait(20)
            if rainy.shape == (1, 1, 3):
                raise NumericError("an estimate is not finite")
            return rainy // np.uint8(self.divisor)
        finally:
            self.at_work -= 1


CHOICES = (Choice(Path("models/by2.safetensors"), "halves <b>"), Choice(Path("models/by4.safetensors"), "quarters"))


class Address:
    """Where a demo is served on this computer."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Served(Address):
    """A demo that is served, and the networks it has loaded."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        self.networks: dict[str, Stand] = {}
        self.listening = server.listen(0)
        super().__init__(self.listening.getsockname()[1])
        self.demo = server.Demo(choices, self._load, self.port)

    def _load(self, path: Path) -> Stand:
        self.networks[path.stem] = Stand(path)
        return self.networks[path.stem]


@contextmanager
def served(choices: Sequence[Choice] = CHOICES) -> Iterator[Served]:
    """A demo that answers until the block ends."""
    running = Served(choices)
    with running.listening:
        answering = server.Server(running.demo)
        thread = threading.Thread(target=answering.run, kwargs={"sockets": [running.listening]})
        thread.start()
        try:
            yield running
        finally:
            answering.should_exit = True
            thread.join(20)
    assert not thread.is_alive()
