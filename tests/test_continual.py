"""Average, backward transfer and forgetting against matrices worked by hand."""

from __future__ import annotations

import math

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


def test_by_hand() -> None:
    assert average(BY_HAND) == pytest.approx((27 + 24 + 36) / 3)
    assert backward_transfer(BY_HAND) == pytest.approx(((27 - 30) + (24 - 28)) / 2)
    assert forgetting(BY_HAND) == pytest.approx(((31 - 27) + (28 - 24)) / 2)


def test_the_best_may_lie_before_the_set_was_learned() -> None:
    matrix = [[30.0, 29.0], [28.0, 25.0]]
    assert forgetting([[30.0, 29.0, 0.0], [28.0, 25.0, 0.0], [27.0, 24.0, 0.0]]) == pytest.approx((3 + 5) / 2)
    assert forgetting(matrix) == pytest.approx(2)


def test_later_gains_are_positive_transfer_and_negative_forgetting() -> None:
    matrix = [[20.0, 10.0], [23.0, 30.0]]
    assert backward_transfer(matrix) == 3
    assert forgetting(matrix) == -3


def test_a_single_task_forgets_nothing() -> None:
    assert (average([[25.0]]), backward_transfer([[25.0]]), forgetting([[25.0]])) == (25, 0, 0)


@given(matrices())
def test_forgetting_is_never_less_than_harm_done_since_learning(matrix: Matrix) -> None:
    assert forgetting(matrix) >= -backward_transfer(matrix) - 1e-9


@given(matrices(), quality_values)
def test_a_constant_added_to_every_quality_moves_the_average_alone(matrix: list[list[float]], offset: float) -> None:
    moved = [[value + offset for value in row] for row in matrix]
    assert average(moved) == pytest.approx(average(matrix) + offset, abs=1e-9)
    assert backward_transfer(moved) == pytest.approx(backward_transfer(matrix), abs=1e-9)
    assert forgetting(moved) == pytest.approx(forgetting(matrix), abs=1e-9)


@given(matrices())
def test_a_network_that_never_changes_neither_forgets_nor_gains(matrix: list[list[float]]) -> None:
    frozen = [matrix[0]] * len(matrix)
    assert forgetting(frozen) == backward_transfer(frozen) == 0
    assert average(frozen) == pytest.approx(sum(matrix[0]) / len(matrix))


@pytest.mark.parametrize("summary", [average, backward_transfer, forgetting])
@pytest.mark.parametrize("matrix", [[], [[]], [[1.0, 2.0]], [[1.0], [2.0, 3.0]]])
def test_only_square_matrices_are_taken(summary, matrix: Matrix) -> None:
    with pytest.raises(ValueError, match="square"):
        summary(matrix)


@pytest.mark.parametrize("summary", [average, backward_transfer, forgetting])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_named_by_its_place(summary, value: float) -> None:
    with pytest.raises(NumericError, match="after task 1 on the test set of task 0"):
        summary([[1.0, 2.0], [value, 3.0]])
