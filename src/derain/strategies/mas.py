"""Memory aware synapses (MAS), Aljundi et al., ECCV 2018.

The penalty is lambda * sum Omega (theta - theta*)^2. Omega is the mean over samples of |d ||f(x)||^2 / d theta|: how
much the output hangs on a weight, whatever the output should be, so that no clean picture is needed. Omegas of tasks
add up.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from derain.params import Count, Finite, Section
from derain.training import strategy
from derain.training.importance import mean_output_sensitivity
from derain.training.strategy import Done, Memory


class Params(Section):
    """`samples` crops are drawn for Omega, one gradient each; None: the set's whole grid of patches."""

    lambda_mas: Annotated[Finite, Field(ge=0)]
    samples: Count | None


class Strategy(strategy.Anchored):
    """The memory is Omega."""

    params: Params

    def strength(self) -> float:
        return self.params.lambda_mas

    def importance(self, done: Done) -> Memory:
        crops = done.samples(self.params.samples, one_by_one=True)
        omega = mean_output_sensitivity(done.network, crops, self.hardware, done.state)
        return {name: self.memory.get(name, 0) + part for name, part in omega.items()}
