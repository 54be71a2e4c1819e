"""What a part of the torture found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Figures(NamedTuple):
    """`counts` of what was done and seen, by name, and what went wrong: one line a `fault`, none where all is well."""

    counts: Mapping[str, float]
    faults: Sequence[str]
