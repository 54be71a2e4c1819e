"""Which synapses are consolidated, and how many: the boolean masks of Neural Reorganization.

A mask maps each parameter's name to a boolean tensor of its shape; True = consolidated = frozen from now on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from derain.types import ParamsError

Mask = dict[str, Tensor]


def alpha_s(alpha_l: float, tau_s: float, tau_l: float) -> float:
    """The coefficient that makes all P(n) sum to one (Eq. 6).

    Raises:
        ParamsError: `tau_l` is not above `tau_s`, or `alpha_l` is so large that alpha_s would be negative.
    """
    if not tau_l > tau_s:
        raise ParamsError(f"params.yaml: nr.tau_l: {tau_l} is not allowed. It must be above nr.tau_s ({tau_s}; Eq. 2).")
    largest = -math.expm1(-1 / tau_l)
    if not alpha_l <= largest:
        raise ParamsError(
            f"params.yaml: nr.alpha_l: {alpha_l} is not allowed. Above {largest:.6g} (tau_l {tau_l}) alpha_s of Eq. 6 "
            "would be negative."
        )
    return (1 - alpha_l / largest) * -math.expm1(-1 / tau_s)


def consolidated_proportion(n: int, alpha_l: float, tau_s: float, tau_l: float) -> float:
    """P(n), the proportion of all weights that task n consolidates, n = 0, 1, ... (Eq. 2)."""
    return alpha_s(alpha_l, tau_s, tau_l) * math.exp(-n / tau_s) + alpha_l * math.exp(-n / tau_l)


def most_important(
    importance: Mapping[str, Tensor], proportion: float, rank: Literal["all", "free"], earlier: Mask
) -> Mask:
    """The weights that one task consolidates (Fig. 3b).

    All importances are ranked in one list, and those strictly above the entry at index int(proportion * #weights)
    are chosen: exactly that many without ties, fewer with ties. `rank: free` leaves out of the list what earlier
    masks hold, so that each task claims new weights (Eq. 3); where fewer are left than asked for, it takes them all.
    """
    ranked = torch.cat([value.flatten() for value in importance.values()])
    index = int(proportion * ranked.numel())
    if rank == "free":
        ranked = ranked[~torch.cat([earlier[name].flatten() for name in importance])]
    # An index past the end means that all that is ranked is taken.
    flag = ranked.sort(descending=True).values[index] if index < ranked.numel() else torch.tensor(-math.inf)
    chosen = {name: value > flag for name, value in importance.items()}
    return {name: part & ~earlier[name] for name, part in chosen.items()} if rank == "free" else chosen


def nothing_consolidated(network: nn.Module) -> Mask:
    """The mask before the first task."""
    return {name: torch.zeros(weight.shape, dtype=torch.bool) for name, weight in network.named_parameters()}


def union(earlier: Mask, newly: Mask | None) -> Mask:
    """Mask ∪ SC(...) of Fig. 3a; None is nothing."""
    return earlier if newly is None else {name: earlier[name] | newly[name] for name in earlier}


def hold_statistics(network: nn.Module) -> None:
    """Stops the running statistics (buffers) of a network that is in training mode: its layers with some evaluate."""
    for module in network.modules():
        if module._buffers:
            module.training = False


def fraction(mask: Mask) -> float:
    """The share of all weights that the mask holds, in [0, 1]."""
    return sum(int(part.sum()) for part in mask.values()) / sum(part.numel() for part in mask.values())


def packed_bytes(mask: Mask) -> int:
    """The bytes that the mask takes at a bit a weight; none where it holds nothing."""
    held = any(bool(part.any()) for part in mask.values())
    return math.ceil(sum(part.numel() for part in mask.values()) / 8) if held else 0
