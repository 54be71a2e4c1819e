"""Elastic weight consolidation (EWC), Kirkpatrick et al., PNAS 2017, online as in Schwarz et al., ICML 2018.

The penalty is lambda/2 * sum gamma F (theta - theta*)^2. F is the mean of squared per-sample gradients at the task's
final weights. Online: one F for all earlier tasks, F <- gamma F + F of the task, and one anchor theta*, the weights
after the last of them; gamma = 1 is their plain sum. (Kirkpatrick et al. keep an F and an anchor for every task.)
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from derain.params import Count, Finite, Section
from derain.training import strategy
from derain.training.importance import mean_squared_gradient
from derain.training.strategy import Done, Memory


class Params(Section):
    """`samples` crops are drawn for F, one gradient each; None: the set's whole grid of patches."""

    lambda_ewc: Annotated[Finite, Field(ge=0)]
    gamma: Annotated[Finite, Field(ge=0, le=1)]
    samples: Count | None


class Strategy(strategy.Anchored):
    """The memory is F."""

    params: Params

    def strength(self) -> float:
        return self.params.lambda_ewc * self.params.gamma / 2

    def importance(self, done: Done) -> Memory:
        crops = done.samples(self.params.samples, one_by_one=True)
        fisher = mean_squared_gradient(done.network, crops, self.hardware, self.objective, done.state)
        return {
            name: self.params.gamma * self.memory[name] + part if self.memory else part for name, part in fisher.items()
        }
