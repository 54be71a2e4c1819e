"""Rain drawn on photographs: those in scikit-image's wheel, or a folder's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from derain.data import photographs, source
from derain.data.photographs import Photograph
from derain.data.rain import KINDS, render
from derain.data.source import Split
from derain.params import Section
from derain.types import Pair, ParamsError, Role

TEST_SEED = 0
"""Of the rain on test pictures."""


class Params(Section):
    """`kind` is one of `derain.data.rain.KINDS`."""

    kind: str


class Source(source.Source):
    """Rain of one kind on the photographs of `data.photos`."""

    params: Params
    roles = ("train", "test")

    def check(self, key: str) -> None:
        if self.params.kind not in KINDS:
            raise ParamsError(f"{key}.kind: {self.params.kind!r} is no kind of rain. Allowed: {', '.join(KINDS)}.")

    def split(self, role: Role) -> Split:
        if self.data.photos == "builtin":
            clean = photographs.builtin_photographs()
        else:
            clean = photographs.folder_photographs(Path(self.data.photos), self.data.test_share)
        # The test pictures are the same for every seed, so that runs differ by what was trained; one rain a picture.
        seed, rains = (TEST_SEED, 1) if role == "test" else (self.seed, self.data.rains_per_photo)
        kinds = [self.params.kind]
        return Split(rendered_pairs(role, kinds=kinds, photographs=clean, seed=seed, rains_per_photograph=rains))


def rendered_pairs(
    role: Role, *, kinds: Sequence[str], photographs: Sequence[Photograph], seed: int, rains_per_photograph: int
) -> Iterator[Pair]:
    """Draws `rains_per_photograph` rains of each kind on each photograph of that role, named as `chelsea-heavy-0`.

    A pair follows from the seed (0 or more), its kind, its photograph and its number alone: it is the same whatever
    else is asked for, so the set of several kinds holds exactly the pairs of the single sets. Pairs come photograph by
    photograph.

    Raises:
        ParamsError: no such kind (at once).
        DataError: a photograph is damaged (when its turn comes).
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ParamsError(f"no kind of rain is named {kind!r}; there are {', '.join(KINDS)}")
    chosen = [photograph for photograph in photographs if photograph.role == role]
    return _pairs(chosen, kinds, seed, rains_per_photograph)


def _pairs(photographs: Sequence[Photograph], kinds: Sequence[str], seed: int, rains: int) -> Iterator[Pair]:
    for photograph in photographs:
        clean = photograph.load()
        for kind in kinds:
            for number in range(rains):
                name = f"{photograph.name}-{kind}-{number}"
                yield Pair(name, render(clean, KINDS[kind], _generator(seed, name)), clean)


def _generator(seed: int, name: str) -> np.random.Generator:
    """A generator of this pair's own; the pair's name is hashed, as Python's own hash differs between runs."""
    words = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence([seed, *words.tolist()]))
