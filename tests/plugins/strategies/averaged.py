"""A throw-away strategy: a running mean of the weights' magnitude decides what is consolidated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from derain.params import Finite, Section
from derain.training import strategy
from derain.training.strategy import Done, Kept


class Params(Section):
    """The `share` of all weights that each task consolidates."""

    share: Annotated[Finite, Field(ge=0, le=1)]


class Strategy(strategy.Masked):
    """Keeps the mean between tasks as its memory."""

    params: Params

    def before_task(self, network: nn.Module) -> None:
        super().before_task(network)
        self.means = {name: weight.detach().abs() for name, weight in network.named_parameters()}

    @torch.no_grad()
    def after_step(self, network: nn.Module) -> None:
        super().after_step(network)
        for name, weight in network.named_parameters():
            self.means[name].lerp_(weight.abs(), 0.1)

    def state_dict(self) -> Mapping[str, Tensor]:
        return self.means

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        self.means = {name: tensor.clone() for name, tensor in tensors.items()}

    def consolidate(self, done: Done) -> Kept:
        plain = {name: weight.detach().abs() for name, weight in done.network.named_parameters()}
        means = getattr(self, "means", plain)  # the first task is learned without a strategy
        ranked = torch.cat([mean.flatten() for mean in means.values()])
        least = ranked.sort(descending=True).values[int(self.params.share * (len(ranked) - 1))]
        return Kept({name: mean > least for name, mean in means.items()}, memory=means)
