"""How far the training of a task is: all that changes while it runs, so that it can go on from there bit for bit.

The crops of an epoch are a function of its number, and the teacher of the weights before the task: neither is state.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from derain.console import say
from derain.training.resume import State
from derain.types import NumericError

History = list[dict[str, float]]


class Checkpoint:
    """The weights, optimizer, schedule, trace and losses so far, brought to where the `state` left them.

    Attributes:
        history: the mean losses of each epoch that is done.
        step: how many steps of the next epoch are done.
    """

    def __init__(
        self,
        parts: Mapping[str, Any],
        schedule: torch.optim.lr_scheduler.LRScheduler,
        device: torch.device,
        state: State,
    ) -> None:
        """`parts` are all that steps change, by name, each with `state_dict` and `load_state_dict`."""
        self.history: History = []
        self.step = 0
        self._sums: Counter[str] = Counter()
        self._schedule = schedule
        self._device = device
        self._parts = {**parts, "schedule": schedule}
        self._state = state
        before = state.load()
        if before is not None:
            self._restore(before)

    def step_done(self, losses: Mapping[str, float], steps: int) -> None:
        """Counts in one of an epoch's `steps`, ends the epoch with the last, and keeps the state where that is due."""
        self._sums.update(losses)
        self.step += 1
        lr = float(self._schedule.get_last_lr()[0])
        self._schedule.step()
        if self.step == steps:
            self._end_epoch(lr)
        self._state.step_done(self._content)

    def _end_epoch(self, lr: float) -> None:
        means = {name: total / self.step for name, total in self._sums.items()}
        self.history.append({"epoch": len(self.history) + 1, "lr": lr, **means})
        self.step = 0
        self._sums.clear()

    def _content(self) -> bytes:
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        if not finite(parts["network"], parts["objective"]):
            raise NumericError(
                f"a weight is not finite after {len(self.history)} epochs and {self.step} steps. Nothing was written. "
                "Try a smaller train.lr or precision=fp32."
            )
        loop = {"history": self.history, "step": self.step, "sums": dict(self._sums)}
        return to_bytes({**parts, "loop": loop, "random": self._random()})

    def _restore(self, content: bytes) -> None:
        kept = from_bytes(content)
        for name, part in self._parts.items():
            state = kept[name]
            part.load_state_dict(
                {key: value.to(self._device) if isinstance(value, Tensor) else value for key, value in state.items()}
            )
        self.history, self.step = kept["loop"]["history"], kept["loop"]["step"]
        self._sums = Counter(kept["loop"]["sums"])
        say(f"goes on where it was interrupted: after {len(self.history)} epochs and {self.step} steps")
        torch.set_rng_state(kept["random"][0])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(kept["random"][1], self._device)

    def _random(self) -> list[torch.Tensor]:
        """The state of torch's random numbers, for backbones that draw some (dropout)."""
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else states


def finite(*tensors: Mapping[str, Tensor]) -> bool:
    """Whether all their values are finite."""
    return all(bool(tensor.isfinite().all()) for each in tensors for tensor in each.values())


def to_bytes(content: Mapping[str, Any]) -> bytes:
    """Tensors and plain values, nested, as bytes."""
    written = io.BytesIO()
    torch.save(dict(content), written)
    return written.getvalue()


def from_bytes(content: bytes) -> dict[str, Any]:
    """What `to_bytes` was given; tensors come back on the CPU."""
    kept: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return kept
