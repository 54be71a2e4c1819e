"""What a source is asked: where the pairs of a data set come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from derain.params import Data
from derain.types import Pair, Role


@dataclass(frozen=True)
class Split:
    """The pairs of a data set that have one role.

    `stride` is that of its grid of patches (None: the patch), `flip` whether each pair comes mirrored too.
    """

    pairs: Iterable[Pair]
    stride: int | None = None
    flip: bool = False


class Source(ABC):
    """One entry of `datasets` in params.yaml."""

    def __init__(self, params: Any, data: Data, seed: int) -> None:
        """`params` is the entry, checked by the `Params` of the source's file; `data` and `seed` as in params.yaml."""
        self.params, self.data, self.seed = params, data, seed

    def check(self, key: str) -> None:  # noqa: B027 - nothing is to be checked
        """Raises ParamsError, beginning with the entry's `key`, where it names what does not exist."""

    @property
    @abstractmethod
    def roles(self) -> Sequence[Role]:
        """The roles for which it has pairs."""

    @abstractmethod
    def split(self, role: Role) -> Split:
        """The pairs of one of its roles; unlabelled ones have their rainy picture on both sides.

        Raises:
            DataError: files are missing, unpaired or damaged.
        """
