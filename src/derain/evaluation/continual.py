"""What a stream of tasks does to quality: average, backward transfer, forgetting.

Each function takes the matrix R, one row per task of the stream and one column per learned test set in the same order:
R[i][j] is the quality (higher is better: dB, SSIM) on the test set of task j after task i was learned. It has as many
rows as columns and is full: the sets that come later are tested too. Test sets that are never learned have no column.

Not square or empty is a ValueError; a value that is not finite raises NumericError.
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


def backward_transfer(quality: Matrix) -> float:
    """How later tasks changed the earlier sets since each was learned; negative where they did harm.

    BWT of Lopez-Paz and Ranzato 2017, Eq. 3: 1/(T-1) sum_{j<T} (R[T][j] - R[j][j]). Of a single task: 0.
    """
    rows = _checked(quality)
    changes = [rows[-1][j] - rows[j][j] for j in range(len(rows) - 1)]
    return fmean(changes) if changes else 0.0


def forgetting(quality: Matrix) -> float:
    """How far the earlier sets fell below the best they had before; negative where the last task raised them above it.

    Chaudhry, Dokania, Ajanthan and Torr, "Riemannian Walk for Incremental Learning", ECCV 2018, Eq. 3 and the mean
    below it: 1/(T-1) sum_{j<T} (max_{l<T} R[l][j] - R[T][j]). The maximum runs over every task before the last, those
    before task j included. Never below -`backward_transfer`, since R[j][j] is among them. Of a single task: 0.
    """
    rows = _checked(quality)
    losses = [max(row[j] for row in rows[:-1]) - rows[-1][j] for j in range(len(rows) - 1)]
    return fmean(losses) if losses else 0.0


def _checked(quality: Matrix) -> Matrix:
    if not quality or any(len(row) != len(quality) for row in quality):
        raise ValueError(f"expected a square matrix, got rows of {[len(row) for row in quality]} values")
    for i, row in enumerate(quality):
        for j, value in enumerate(row):
            if not math.isfinite(value):
                raise NumericError(f"the quality after task {i} on the test set of task {j} is {value}")
    return quality
