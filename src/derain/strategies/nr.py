"""Neural Reorganization, Xiao et al., ICCV 2021: synaptic consolidation (SC) and knowledge distillation (KD)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from derain.params import Finite, Positive, Section
from derain.states import State
from derain.strategies import _base
from derain.strategies._base import Samples
from derain.training import importance, masks
from derain.training.losses import negative_ssim
from derain.training.masks import Mask
from derain.types import Batch, NumericError, Restored, Task


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


class Strategy(_base.Strategy):
    """KD of Fig. 3c while a task is learned, SC of Fig. 3b after it."""

    params: Params

    def before_task(self, network: nn.Module) -> None:
        self.before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
        if self.params.lambda_kd > 0:
            self.teacher = copy.deepcopy(network).eval().requires_grad_(False)

    def extra_losses(self, batch: Batch, restored: Restored) -> Mapping[str, Tensor]:
        if self.params.lambda_kd == 0:
            return {}
        with torch.no_grad(), self.hardware.autocast():
            remembered = self.teacher(batch.rainy).derained
        return {"distillation": self.params.lambda_kd * negative_ssim(restored.derained, remembered)}  # Eq. 7

    def before_step(self, network: nn.Module) -> None:
        """Shields consolidated weights: Adam leaves a weight alone whose gradient was zero from its first step on."""
        for name, weight in network.named_parameters():
            assert weight.grad is not None
            weight.grad.masked_fill_(self.mask[name], 0)

    def after_task(self, network: nn.Module) -> None:
        """Asserts that every consolidated weight has the bits it had before the task."""
        for name, weight in network.named_parameters():
            held = self.mask[name]
            if not torch.equal(weight[held], self.before[name][held]):
                raise NumericError(
                    f"a consolidated weight of {name} has moved: the model is not kept. Please report this."
                )

    def consolidate(
        self, network: nn.Module, task: Task, samples: Samples, state: State
    ) -> tuple[Mask, Mapping[str, Any]]:
        if not self.params.consolidate:
            return masks.nothing_consolidated(network), {}
        params = self.params
        crops = samples(params.samples, params.gradient == "sample")
        omega = importance.mean_absolute_gradient(network, crops, self.hardware, state)
        proportion = masks.consolidated_proportion(task.position, params.alpha_l, params.tau_s, params.tau_l)
        chosen = masks.most_important(omega, proportion, params.rank, self.mask)
        return {name: part.cpu() for name, part in chosen.items()}, {"P(n)": proportion}
