"""Small data and settings that the tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

os.environ.setdefault("DVC_NO_ANALYTICS", "1")

from derain import params
from derain.compute.hardware import Hardware, choose
from derain.data.pack import Pack, write_pack
from derain.objectives import negative_ssim
from derain.params import Params
from derain.recipes import adam_multistep
from derain.training.crops import Packs
from derain.training.learn import Learner
from derain.training.micro_batches import MicroBatches
from derain.training.strategy import Strategy
from derain.training.trace import Trace
from derain.types import Pair

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what tests cache (states, last_error.json) out of the user's own cache."""
    with mock.patch.dict(os.environ, DERAIN_CACHE=str(tmp_path_factory.mktemp("cache"))):
        yield


@pytest.fixture(scope="session")
def hardware() -> Hardware:
    where = choose("cpu", "fp32")
    where.set_up_process(threads=1)
    return where


@pytest.fixture
def tiny_params() -> Params:
    """The demo's parameters at a size that trains in a second."""
    demo = params.load(ROOT / "params.yaml")
    sections = demo.sections | {
        "prenet": {"channels": 8, "stages": 2, "blocks": 1},
        "adam_multistep": {"milestones": [0.5], "gamma": 0.2},
        **{name: demo.sections[name] | {"samples": 6} for name in ("nr", "ewc", "mas", "pigwm")},
    }
    train = demo.train.model_copy(update={"epochs": 2, "steps_per_epoch": 2, "batch": 2, "patch": 16})
    return demo.model_copy(update={"train": train, "sections": sections, "threads": 1})


@pytest.fixture(scope="session")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pack]:
    """Training splits of the demo's four sets: noise on smooth pictures, stronger or weaker."""
    folder = tmp_path_factory.mktemp("packs")
    for number, name in enumerate(("heavy", "medium", "varied", "light")):
        write_pack(folder / name, "train", noisy_pairs(seed=number, noise=60 // (number + 1)))
    return {name: Pack.open(folder / name, "train") for name in ("heavy", "medium", "varied", "light")}


def noisy_pairs(seed: int, noise: int, count: int = 4, height: int = 24, width: int = 32) -> list[Pair]:
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(count):
        ramp = np.linspace(20, 200, width)[None, :, None] * np.ones((height, 1, 3)) * rng.uniform(0.5, 1, 3)
        rainy = np.clip(ramp + rng.integers(0, noise + 1, (height, width, 1)), 0, 255)
        pairs.append(Pair(f"picture{index}", rainy.astype(np.uint8), ramp.astype(np.uint8)))
    return pairs


def random_batch(seed: int, count: int = 3, size: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(count, 3, size, size, generator=generator)
    rainy = (clean + 0.3 * torch.rand(count, 1, size, size, generator=generator)).clamp(0, 1)
    return rainy, clean


NEGATIVE_SSIM = negative_ssim.Objective(negative_ssim.Params())


def by_role(packs: Mapping[str, Pack]) -> Callable[[str], Packs]:
    """Training splits as `learn_stream` asks for them."""
    return lambda name: {"train": packs[name]}


def learner_of(
    network: nn.Module,
    strategy: Strategy,
    hardware: Hardware,
    parts: MicroBatches | None = None,
    sgd: float | None = None,
    lr: float = 1e-3,
) -> Learner:
    """A network that is about to learn by Adam and negative SSIM.

    `sgd` is the step of plain descent instead, which shows the gradient itself: Adam's first step is its sign, which
    rounding may turn.
    """
    recipe = adam_multistep.Recipe(adam_multistep.Params(milestones=[], gamma=1.0), lr, 1, 1)
    weights = list(network.parameters())
    optimizer = recipe.optimizer(weights, fused=False) if sgd is None else torch.optim.SGD(weights, lr=sgd)
    objective = strategy.objective
    return Learner(network, objective, strategy, recipe, optimizer, hardware, parts or MicroBatches(), Trace(network))
