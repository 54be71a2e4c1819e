"""Neural Reorganization, Xiao et al., ICCV 2021: synaptic consolidation (SC) and knowledge distillation (KD)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from derain.compute.batch import Batch
from derain.params import Finite, Positive, Section
from derain.training import importance, masks, strategy
from derain.training.strategy import Done, Kept
from derain.types import Restored


class Params(Section):
    """The hyper-parameters of Sec. 4.2 and the choices where the paper leaves some (docs/method.md)."""

    alpha_l: Annotated[Finite, Field(ge=0)]
    tau_s: Positive
    tau_l: Positive
    lambda_kd: Annotated[Finite, Field(ge=0)]
    consolidate: bool
    rank: Literal["all", "free"]
    gradient: Literal["sample", "batch"]
    samples: Annotated[int, Field(ge=1)] | None

    @model_validator(mode="after")
    def _proportions(self) -> Params:
        masks.alpha_s(self.alpha_l, self.tau_s, self.tau_l)
        return self


class Strategy(strategy.Masked):
    """KD of Fig. 3c while a task is learned, SC of Fig. 3b after it."""

    params: Params

    @property
    def needs_former_weights(self) -> bool:
        return self.params.lambda_kd > 0

    def before_task(self, network: nn.Module) -> None:
        super().before_task(network)
        if self.params.lambda_kd > 0:
            self.teacher = copy.deepcopy(network).eval().requires_grad_(False)

    def extra_losses(self, batch: Batch, restored: Restored) -> Mapping[str, Tensor]:
        if self.params.lambda_kd == 0:
            return {}
        with torch.no_grad():
            remembered = self.hardware.forward(self.teacher, batch.rainy).derained
        return {"distillation": self.params.lambda_kd * self.objective.distance(restored.derained, remembered)}  # Eq. 7

    def consolidate(self, done: Done) -> Kept:
        if not self.params.consolidate:
            return Kept()
        params = self.params
        crops = done.samples(params.samples, one_by_one=params.gradient == "sample")
        omega = importance.mean_absolute_gradient(done.network, crops, self.hardware, self.objective, done.state)
        proportion = masks.consolidated_proportion(done.task.position, params.alpha_l, params.tau_s, params.tau_l)
        chosen = masks.most_important(omega, proportion, params.rank, self.mask)
        return Kept(chosen, facts={"P(n)": proportion})
