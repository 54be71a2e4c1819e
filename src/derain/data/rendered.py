"""Pairs of rendered rain: every photograph of a split under every kind asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from derain.data.photographs import Photograph, Split
from derain.data.rain import KINDS, render
from derain.types import Pair, ParamsError


def rendered_pairs(
    split: Split, *, kinds: Sequence[str], photographs: Sequence[Photograph], seed: int, rains_per_photograph: int
) -> Iterator[Pair]:
    """Draws `rains_per_photograph` rains of each kind on each photograph of the split, named as `chelsea-heavy-0`.

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
    chosen = [photograph for photograph in photographs if photograph.split == split]
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
