"""What a stream of tasks does to quality: average, backward transfer, forgetting.

Each function takes the matrix R, one row per task of the stream and one column per learned test set: R[i][j] is the
quality (higher is better: dB, SSIM) on test set j after task i was learned. It is full: sets that come later are tested
too. `learned[j]` is the task that learned set j, the last one where several did; sets that are never learned have no
column, and in the papers' notation, where every task brings a set of its own, learned[j] is j.

A matrix that is empty, ragged, or has another number of columns than `learned` is a ValueError; a value that is not
finite raises NumericError.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from derain.types import NumericError

Matrix = Sequence[Sequence[float]]


def average(quality: Matrix) -> float:
    """The mean quality over all learned sets after the last task.

    ACC of Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017, Eq. 2:
    1/T sum_j R[T][j].
    """
    return fmean(_checked(quality)[-1])


def backward_transfer(quality: Matrix, learned: Sequence[int]) -> float:
    """How later tasks changed the earlier sets since each was learned; negative where they did harm.

    BWT of Lopez-Paz and Ranzato 2017, Eq. 3: 1/(T-1) sum_{j<T} (R[T][j] - R[j][j]). The set of the last task is no
    earlier one. Where there is none: 0.
    """
    rows = _checked(quality, learned)
    changes = [rows[-1][j] - rows[learned[j]][j] for j in _earlier(rows, learned)]
    return fmean(changes) if changes else 0.0


def forgetting(quality: Matrix, learned: Sequence[int]) -> float:
    """How far the earlier sets fell below the best they had before; negative where the last task raised them above it.

    Chaudhry, Dokania, Ajanthan and Torr, "Riemannian Walk for Incremental Learning", ECCV 2018, Eq. 3 and the mean
    below it: 1/(T-1) sum_{j<T} (max_{l<T} R[l][j] - R[T][j]). The maximum runs over every task before the last, those
    before task j included. Never below -`backward_transfer`, since R[j][j] is among them. The set of the last task is
    no earlier one. Where there is none: 0.
    """
    rows = _checked(quality, learned)
    losses = [max(row[j] for row in rows[:-1]) - rows[-1][j] for j in _earlier(rows, learned)]
    return fmean(losses) if losses else 0.0


def _earlier(rows: Matrix, learned: Sequence[int]) -> list[int]:
    """The sets that a task before the last one learned for the last time."""
    return [j for j, task in enumerate(learned) if task < len(rows) - 1]


def _checked(quality: Matrix, learned: Sequence[int] | None = None) -> Matrix:
    columns = len(quality[0] if learned is None else learned) if quality else 0
    if not columns or any(len(row) != columns for row in quality):
        raise ValueError(f"expected {columns} values a row, got rows of {[len(row) for row in quality]}")
    for i, row in enumerate(quality):
        for j, value in enumerate(row):
            if not math.isfinite(value):
                raise NumericError(f"the quality after task {i} on test set {j} is {value}")
    return quality
