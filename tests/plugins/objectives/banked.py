"""A throw-away objective: the distance, a head on the latent that learns too, and a bank filled before each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from derain.compute.batch import Batch
from derain.params import Section
from derain.training import objective
from derain.training.crops import Crops
from derain.training.objective import Forward
from derain.types import Restored


class Params(Section):
    """`channels` of the latent, and how many crops without a clean partner join each step."""

    channels: Annotated[int, Field(ge=1)]
    unlabelled: Annotated[int, Field(ge=0)]


class Objective(objective.Objective):
    """L1 on labelled crops; the head tells the mean latent of the bank from any other."""

    params: Params
    bank: Tensor

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.unlabelled = params.unlabelled
        self.head = nn.Linear(params.channels, params.channels)
        self.register_buffer("bank", torch.zeros(params.channels))

    def distance(self, derained: Tensor, reference: Tensor) -> Tensor:
        return (derained.float() - reference).abs().mean()

    def before_epoch(self, epoch: int, crops: Crops, forward: Forward) -> None:
        latents = [forward(batch.rainy).also["latent"].float().mean((0, 2, 3)) for batch in crops]
        self.bank.copy_(torch.stack(latents).mean(0))

    def losses(self, batch: Batch, restored: Restored, forward: Forward) -> Mapping[str, Tensor]:
        if batch.labelled is not None:
            assert torch.equal(batch.clean[~batch.labelled], batch.rainy[~batch.labelled]), "no clean partner is read"
        errors = (restored.derained.float() - batch.clean).abs().mean((1, 2, 3))
        latent = self.head(restored.also["latent"].float().mean((2, 3)))
        return {
            "supervised": batch.mean(errors, batch.labelled),
            "bank": 0.1 * batch.mean((latent - self.bank).square().mean(1), None),
        }
