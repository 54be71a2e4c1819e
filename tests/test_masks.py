"""How many weights are consolidated and which, against hand-computed values and a second derivation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from derain.training import masks
from derain.types import ParamsError

PAPER = {"alpha_l": 0.008, "tau_s": 1.0, "tau_l": 10.0}


def test_proportions_of_the_paper() -> None:
    assert masks.alpha_s(**PAPER) == pytest.approx(0.578980, abs=5e-7)  # printed truncated: 0.5789 (Sec. 4.2)
    proportions = [masks.consolidated_proportion(n, **PAPER) for n in range(4)]
    assert proportions == pytest.approx([0.586980, 0.220234, 0.084906, 0.034752], abs=5e-7)


@given(
    tau_s=st.floats(0.1, 5),
    ratio=st.floats(1.01, 20),
    share=st.floats(0, 1),
)
def test_all_proportions_sum_to_one(tau_s: float, ratio: float, share: float) -> None:
    tau_l = tau_s * ratio
    alpha_l = -share * math.expm1(-1 / tau_l)
    total = sum(masks.consolidated_proportion(n, alpha_l, tau_s, tau_l) for n in range(int(40 * tau_l) + 40))
    assert total == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(("alpha_l", "tau_s", "tau_l"), [(0.008, 10, 10), (0.008, 11, 10), (0.0952, 1, 10)])
def test_impossible_proportions_are_refused(alpha_l: float, tau_s: float, tau_l: float) -> None:
    with pytest.raises(ParamsError, match=r"nr\.(tau_l|alpha_l)"):
        masks.alpha_s(alpha_l, tau_s, tau_l)


def second_derivation(omega: dict[str, torch.Tensor], proportion: float) -> dict[str, np.ndarray]:
    """Fig. 3b once more, by counting how many entries are larger instead of by sorting."""
    everything = np.concatenate([value.numpy().ravel() for value in omega.values()])
    index = int(proportion * everything.size)

    def consolidated(value: float) -> bool:
        # `value > sorted[index]`: entries not below the value do not reach down to the index.
        return int((everything >= value).sum()) <= index

    return {name: np.vectorize(consolidated)(value.numpy()) for name, value in omega.items()}


@pytest.mark.parametrize("levels", [3, 10, 10_000])
@pytest.mark.parametrize("proportion", [0.0, 0.034752, 0.5, 0.586980, 0.999])
def test_the_mask_equals_a_second_derivation_with_and_without_ties(proportion: float, levels: int) -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = {"a.weight": (4, 3, 3, 3), "a.bias": (4,), "b.weight": (5, 7)}
    omega = {name: torch.randint(levels, shape, generator=generator).float() for name, shape in shapes.items()}
    chosen = masks.most_important(omega, proportion, "all", {})
    expected = second_derivation(omega, proportion)
    for name in shapes:
        assert chosen[name].dtype == torch.bool
        np.testing.assert_array_equal(chosen[name].numpy(), expected[name])


def test_ties_at_the_threshold_are_not_consolidated() -> None:
    omega = {"w": torch.tensor([5.0, 4, 3, 3, 3, 1])}
    assert masks.most_important(omega, 0.5, "all", {})["w"].tolist() == [True, True, False, False, False, False]
    assert masks.most_important(omega, 0.34, "all", {})["w"].sum() == 2  # index 2: strictly above 3


def test_without_ties_exactly_index_weights_are_consolidated() -> None:
    omega = {"w": torch.randperm(168_963, generator=torch.Generator().manual_seed(0)).float()}
    counts = [
        int(masks.most_important(omega, masks.consolidated_proportion(n, **PAPER), "all", {})["w"].sum())
        for n in range(4)
    ]
    assert counts == [99_177, 37_211, 14_346, 5_871]


def test_ranking_the_free_weights_claims_new_ones_only() -> None:
    omega = {"w": torch.arange(10.0), "v": torch.arange(10.0, 20.0)}
    earlier = {"w": torch.zeros(10, dtype=torch.bool), "v": torch.ones(10, dtype=torch.bool)}
    chosen = masks.most_important(omega, 0.2, "free", earlier)
    assert chosen["v"].sum() == 0
    assert chosen["w"].nonzero().flatten().tolist() == [6, 7, 8, 9]  # 0.2 of all 20
    everything = masks.most_important(omega, 0.9, "free", earlier)
    assert bool(everything["w"].all()), "more asked for than free: all that is free"


def test_union_only_grows_and_fraction_counts() -> None:
    first = {"w": torch.tensor([True, False, False, False]), "b": torch.tensor([False])}
    second = {"w": torch.tensor([True, True, False, False]), "b": torch.tensor([True])}
    both = masks.union(first, second)
    assert both["w"].tolist() == [True, True, False, False]
    assert masks.fraction(first) == 0.2
    assert masks.fraction(both) == 0.6
