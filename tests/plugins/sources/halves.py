"""A throw-away source: pictures of noise, pairs for training and rainy ones alone."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from derain.data import source
from derain.data.source import Split
from derain.params import Section
from derain.types import Pair, Role


class Params(Section):
    """How many pictures; whether the unlabelled ones give their clean ones away, which is a mistake."""

    count: Annotated[int, Field(ge=1)]
    gives_away: bool = False


class Source(source.Source):
    """Half of them have no clean partner."""

    params: Params
    roles = ("train", "unlabelled")

    def split(self, role: Role) -> Split:
        rng = np.random.default_rng([self.seed, len(role)])
        clean = rng.integers(0, 200, (self.params.count, 24, 32, 3), dtype=np.uint8)
        hidden = role == "unlabelled" and not self.params.gives_away
        pairs = [Pair(f"{role}{n}", one + 50, one + 50 if hidden else one) for n, one in enumerate(clean)]
        return Split(pairs)
