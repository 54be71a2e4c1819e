"""Synaptic intelligence, Zenke, Poole and Ganguli, ICML 2017; not the de-raining paper's SI (strategies/si.py).

The penalty is c * sum Omega (theta - theta*)^2 (Eq. 4). Each task adds omega / (Delta^2 + xi) to Omega (Eq. 5): omega
is the path integral of -gradient along a weight's way through the task, Delta the way from its start to its end. An
Omega below zero (the weight's ways made the losses larger) becomes zero, as in the authors' code: else the penalty
would push the weight away.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from derain.params import Finite, Positive, Section
from derain.training import strategy
from derain.training.strategy import Done, Memory


class Params(Section):
    """The symbols of Eq. 4 and 5."""

    c: Annotated[Finite, Field(ge=0)]
    xi: Positive


class Strategy(strategy.Anchored):
    """The memory is Omega."""

    params: Params

    def strength(self) -> float:
        return self.params.c

    def importance(self, done: Done) -> Memory:
        omega = {}
        for name, (path_integral, way) in done.trace.items():
            of_task = path_integral / (way.square() + self.params.xi)
            omega[name] = (self.memory.get(name, 0) + of_task).clamp(min=0)
        return omega
