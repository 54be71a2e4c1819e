"""A throw-away objective: the distance, a head on the latent that learns too, and a bank filled before each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from derain.params import Section
from derain.training import objective
from derain.training.crops import Crops
from derain.training.objective import Forward
from derain.types import Batch, Restored


class Params(Section):
    """`channels` of the latent, and how many crops without a clean partner join each step."""

    channels: Annotated[int, Field(ge=1)]
    unlabelled: Annotated[int, Field(ge=0)]


class Objective(objective.Objective):
    """L1 on labelled crops; the head tells the mean latent of the bank from any other."""

    samples_coupled = True
    params: Params
    bank: Tensor

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.unlabelled = params.unlabelled
        self.head = nn.Linear(params.channels, params.channels)
        self.register_buffer("bank", torch.zeros(params.channels))

    def distance(self, derained: Tensor, reference: Tensor) -> Tensor:
        return (derained.float() - reference).abs().mean()

    @torch.no_grad()
    def before_epoch(self, epoch: int, crops: Crops, forward: Forward) -> None:
        latents = [forward(batch.rainy).also["latent"].float().mean((0, 2, 3)) for batch in crops]
        self.bank.copy_(torch.stack(latents).mean(0))

    def losses(self, batch: Batch, restored: Restored, forward: Forward) -> Mapping[str, Tensor]:
        labelled = torch.ones(len(batch.rainy), dtype=torch.bool) if batch.labelled is None else batch.labelled
        assert torch.equal(batch.clean[~labelled], batch.rainy[~labelled]), "an unlabelled crop has no clean partner"
        mean = restored.also["latent"].float().mean((2, 3))
        return {
            "supervised": self.distance(restored.derained[labelled], batch.clean[labelled]),
            "bank": 0.1 * (self.head(mean) - self.bank).square().mean(),
        }
