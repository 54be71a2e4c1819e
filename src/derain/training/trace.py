"""What a training leaves to be known of its way, beyond where it ended: Synaptic Intelligence asks for it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Trace:
    """The path integral of the gradient along the weights' way (Zenke et al. 2017, Eq. 3), summed step by step.

    The gradient is that of the losses on the step's batch, without the strategy's penalties on weights.
    """

    def __init__(self, network: nn.Module) -> None:
        """`network` has the weights that the task starts from."""
        self._start = _copied(network)
        self._path_integral = {name: torch.zeros_like(weight) for name, weight in self._start.items()}
        self._gradients: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}

    def before_step(self, network: nn.Module) -> None:
        """Called once the gradient of the step's losses is complete, and nothing has changed it."""
        self._weights = _copied(network)
        self._gradients = {
            name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None
        }

    def after_step(self, network: nn.Module) -> None:
        """Called after the optimizer's step."""
        weights = dict(network.named_parameters())
        # Lists at once: tensor by tensor, a GPU waits for the next one to be asked for.
        names = list(self._gradients)
        moved = torch._foreach_sub([weights[name].detach() for name in names], [self._weights[name] for name in names])
        torch._foreach_mul_(moved, [self._gradients[name] for name in names])
        torch._foreach_sub_([self._path_integral[name] for name in names], moved)

    def tensors(self, network: nn.Module) -> dict[str, Tensor]:
        """By weight, a float32 tensor (2, *its shape): the sum of -g dtheta, and the way from start to end."""
        return {
            name: torch.stack((self._path_integral[name], weight.detach() - self._start[name]))
            for name, weight in network.named_parameters()
        }

    def state_dict(self) -> dict[str, Tensor]:
        return self._path_integral

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, value in state.items():
            self._path_integral[name].copy_(value)


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in network.named_parameters()}
