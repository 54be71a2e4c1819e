"""The words that every module uses. Imports NumPy (and torch for annotations) only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


DEVICES = r"auto|cpu|cuda(:\d+)?"
"""The names of devices, as a regular expression."""


class DerainError(Exception):
    """A fault that the user can mend: one or two lines that name the file or key and the way out.

    Stages and commands print it without a traceback and exit with `exit_code`.
    """

    exit_code = 1


class ParamsError(DerainError):
    """A wrong key or value in params.yaml or on the command line."""

    exit_code = 2


class NumericError(DerainError):
    """A number that is not finite where one must be (loss, gradient, metric)."""

    exit_code = 4


class DataError(DerainError):
    """A missing, damaged or unsuitable file: picture, archive, pack, checkpoint, download."""

    exit_code = 5


class SpaceError(DataError):
    """No space on the disk, or no memory: it can be tried again when there is some."""

    exit_code = 6


class BusyError(DerainError):
    """Another process is at work on the same: trying again later helps (EX_TEMPFAIL of sysexits.h)."""

    exit_code = 75


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's own, or torch's, on a GPU or (a RuntimeError) on the CPU."""
    by_name = type(error).__name__ == "OutOfMemoryError"  # of a module that need not be imported for this
    return by_name or isinstance(error, MemoryError) or "can't allocate memory" in str(error)


Role = Literal["train", "test", "unlabelled"]
"""What the pairs of a data set are for; `unlabelled` ones have no clean picture: theirs is the rainy one."""
ROLES: tuple[Role, ...] = get_args(Role)


class Pair(NamedTuple):
    """A rainy photograph and its clean counterpart.

    Both are uint8 arrays of shape (height, width, 3), RGB, of equal size; `name` identifies the pair in its data set.
    """

    name: str
    rainy: np.ndarray
    clean: np.ndarray


class Restored(NamedTuple):
    """What a backbone returns.

    `derained` is the last estimate, shape (N, 3, H, W), nominally in [0, 1] and not clamped; `also` is what else an
    objective may ask for, by name (latent, snow, logits).
    """

    derained: Tensor
    also: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class Task:
    """One task of the stream.

    `key` names it (kd_task@<key>), `position` is its place in the stream from 0 on (the n of P(n)), `dataset` what it
    learns, and `after` the key of the task before it (None for the first).
    """

    key: str
    position: int
    dataset: str
    after: str | None

    @property
    def name(self) -> str:
        """The stem of the task's artifacts: models/task0.safetensors, masks/task0.safetensors."""
        return f"task{self.key}"
