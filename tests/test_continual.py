"""Average, backward transfer and forgetting against matrices worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derain.evaluation.continual import Matrix, average, backward_transfer, forgetting
from derain.types import NumericError

# Three tasks: the first one's best comes after task 1, the second is lost by the third.
#            on 0   on 1   on 2
BY_HAND = [[30.0, 20.0, 15.0], [31.0, 28.0, 17.0], [27.0, 24.0, 36.0]]

quality_values = st.floats(-100, 100)


@st.composite
def matrices(draw: st.DrawFn) -> list[list[float]]:
    tasks = draw(st.integers(1, 6))
    return [[draw(quality_values) for _ in range(tasks)] for _ in range(tasks)]


def each_its_own(matrix: Matrix) -> range:
    """The papers' case: task j learns set j."""
    return range(len(matrix))


def test_by_hand() -> None:
    assert average(BY_HAND) == pytest.approx((27 + 24 + 36) / 3)
    assert backward_transfer(BY_HAND, range(3)) == pytest.approx(((27 - 30) + (24 - 28)) / 2)
    assert forgetting(BY_HAND, range(3)) == pytest.approx(((31 - 27) + (28 - 24)) / 2)


def test_the_best_may_lie_before_the_set_was_learned() -> None:
    matrix = [[30.0, 29.0], [28.0, 25.0]]
    assert forgetting([[30.0, 29.0, 0.0], [28.0, 25.0, 0.0], [27.0, 24.0, 0.0]], range(3)) == pytest.approx((3 + 5) / 2)
    assert forgetting(matrix, range(2)) == pytest.approx(2)


def test_a_set_that_is_learned_twice_counts_once_and_that_of_the_last_task_not_at_all() -> None:
    """Sets 0 and 1, then both again: after the last task only set 0 can have been forgotten."""
    matrix = [[30.0, 20.0], [24.0, 28.0], [29.0, 25.0], [26.0, 27.0]]
    assert forgetting(matrix, [2, 3]) == 30 - 26
    assert backward_transfer(matrix, [2, 3]) == 26 - 29


def test_a_last_task_whose_set_is_not_tested_does_its_harm() -> None:
    assert forgetting([[30.0], [22.0]], [0]) == 8
    assert backward_transfer([[30.0], [22.0]], [0]) == -8


def test_later_gains_are_positive_transfer_and_negative_forgetting() -> None:
    matrix = [[20.0, 10.0], [23.0, 30.0]]
    assert backward_transfer(matrix, range(2)) == 3
    assert forgetting(matrix, range(2)) == -3


def test_a_single_task_forgets_nothing() -> None:
    assert (average([[25.0]]), backward_transfer([[25.0]], [0]), forgetting([[25.0]], [0])) == (25, 0, 0)


@given(matrices())
def test_forgetting_is_never_less_than_harm_done_since_learning(matrix: Matrix) -> None:
    learned = each_its_own(matrix)
    assert forgetting(matrix, learned) >= -backward_transfer(matrix, learned) - 1e-9


@given(matrices(), quality_values)
def test_a_constant_added_to_every_quality_moves_the_average_alone(matrix: list[list[float]], offset: float) -> None:
    moved, learned = [[value + offset for value in row] for row in matrix], each_its_own(matrix)
    assert average(moved) == pytest.approx(average(matrix) + offset, abs=1e-9)
    assert backward_transfer(moved, learned) == pytest.approx(backward_transfer(matrix, learned), abs=1e-9)
    assert forgetting(moved, learned) == pytest.approx(forgetting(matrix, learned), abs=1e-9)


@given(matrices())
def test_a_network_that_never_changes_neither_forgets_nor_gains(matrix: list[list[float]]) -> None:
    frozen, learned = [matrix[0]] * len(matrix), each_its_own(matrix)
    assert forgetting(frozen, learned) == backward_transfer(frozen, learned) == 0
    assert average(frozen) == pytest.approx(sum(matrix[0]) / len(matrix))


@pytest.mark.parametrize("summary", [backward_transfer, forgetting])
@pytest.mark.parametrize("matrix", [[], [[]], [[1.0, 2.0]], [[1.0], [2.0, 3.0]]])
def test_a_matrix_has_a_column_for_each_learned_set(
    summary: Callable[[Matrix, Sequence[int]], float], matrix: Matrix
) -> None:
    with pytest.raises(ValueError, match="values a row"):
        summary(matrix, each_its_own(matrix))


@pytest.mark.parametrize("matrix", [[], [[]], [[1.0], [2.0, 3.0]]])
def test_the_average_of_nothing_or_of_a_ragged_matrix_is_refused(matrix: Matrix) -> None:
    with pytest.raises(ValueError, match="values a row"):
        average(matrix)


@pytest.mark.parametrize(
    "summary", [average, lambda matrix: backward_transfer(matrix, [0, 1]), lambda matrix: forgetting(matrix, [0, 1])]
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_named_by_its_place(summary: Callable[[Matrix], float], value: float) -> None:
    with pytest.raises(NumericError, match="after task 1 on test set 0"):
        summary([[1.0, 2.0], [value, 3.0]])
