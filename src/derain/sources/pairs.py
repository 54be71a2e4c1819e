"""A user's own folders of rainy and clean pictures, paired by their names: see `derain.data.pairs`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import model_validator

from derain.data import pairs, source
from derain.data.source import Split
from derain.params import Section
from derain.types import Role


class Folders(Section):
    """A folder of rainy and one of clean pictures; the same folder twice where both lie together."""

    rainy: str
    clean: str


class Params(Section):
    """The folders by role; one of the two is enough."""

    train: Folders | None = None
    test: Folders | None = None

    @model_validator(mode="after")
    def _a_split(self) -> Params:
        if self.train is None and self.test is None:
            raise ValueError("name a train or a test split, or both")
        return self


class Source(source.Source):
    """What lies in the folders."""

    params: Params

    @property
    def roles(self) -> Sequence[Role]:
        given: dict[Role, Folders | None] = {"train": self.params.train, "test": self.params.test}
        return [role for role, folders in given.items() if folders is not None]

    def split(self, role: Role) -> Split:
        folders: Folders = getattr(self.params, role)
        return Split(pairs.read_pairs(pairs.folder_pairs(Path(folders.rainy), Path(folders.clean))))
