"""The union of several sets, of any source: the paper's Mix baseline, or labelled pairs with unlabelled pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field

from derain.data import sets, source
from derain.data.source import Split
from derain.params import Section
from derain.types import ROLES, Pair, Role


class Params(Section):
    """`of` lists entries as `datasets` has them."""

    of: Annotated[list[dict[str, Any]], Field(min_length=1)]


class Source(source.Source):
    """All pairs of the parts that have a role, names numbered by part.

    Where the parts' grids differ, the widest stride holds for all.
    """

    params: Params

    def check(self, key: str) -> None:
        for number in range(len(self.params.of)):
            self._part(number, key).check(f"{key}.of.{number}")

    @property
    def roles(self) -> Sequence[Role]:
        owned = {role for number in range(len(self.params.of)) for role in self._part(number).roles}
        return [role for role in ROLES if role in owned]

    def split(self, role: Role) -> Split:
        parts = [self._part(number) for number in range(len(self.params.of))]
        splits = [part.split(role) for part in parts if role in part.roles]
        strides = [split.stride for split in splits if split.stride is not None]
        return Split(_numbered(splits), max(strides, default=None))

    def _part(self, number: int, key: str = "datasets") -> source.Source:
        return sets.source_of(self.params.of[number], f"{key}.of.{number}", self.data, self.seed)


def _numbered(splits: list[Split]) -> Iterator[Pair]:
    for number, split in enumerate(splits):
        for name, rainy, clean in split.pairs:
            yield Pair(f"{number}-{name}", rainy, clean)
            if split.flip:
                yield Pair(f"{number}-{name}-flipped", rainy[:, ::-1], clean[:, ::-1])
