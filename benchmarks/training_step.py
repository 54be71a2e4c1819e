"""A training step, against the published script's and against its convolutions alone; the gradients side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import _measure
from benchmarks._measure import Result
from benchmarks.baseline import PublishedPReNet, published_ssim, published_step
from derain.backbones.prenet import PReNet
from derain.compute.batch import Batch
from derain.compute.hardware import COMPILED_FROM, Hardware
from derain.objectives import negative_ssim
from derain.recipes import adam_multistep
from derain.strategies import nr
from derain.training import cuda_graphs, masks
from derain.training.learn import Learner, training_step
from derain.training.micro_batches import MicroBatches
from derain.training.strategy import Params as NoParams
from derain.training.strategy import Strategy
from derain.training.trace import Trace

CHANNELS, STAGES, BLOCKS = 32, 6, 5
CPU = torch.device("cpu")


def main() -> None:
    chosen = _measure.arguments("training_step", __doc__, batch=18, patch=100)
    where = _measure.hardware(chosen).for_steps(COMPILED_FROM)
    batch = crops(chosen.batch, chosen.patch, where.device)
    works = {"ours": step(networks(where.device)[0], batch, where, distilled=False)}
    if chosen.ours_only:
        _measure.ours_only(chosen, _measure.interleaved(works, chosen.steps)["ours"])
        return
    works |= {
        "ours, distilling": step(networks(where.device)[0], batch, where, distilled=True),
        "its convolutions": convolutions(chosen.batch, chosen.patch, where),
    }
    facts = gradients(batch, where)
    with _measure.elsewhere(published_steps, chosen.batch, chosen.patch, where.device) as published:
        seconds = _measure.interleaved({**works, **published}, chosen.steps)
    result = Result(f"training step, {chosen.precision}", vars(chosen) | {"json": None}, facts=facts)
    result.rows = [
        _measure.compared("training step", "published", seconds, "ours"),
        _measure.compared("training step", "published, one forward", seconds, "ours"),
        _measure.compared("step with distillation", "ours", seconds, "ours, distilling"),
        _measure.compared("training step", "its convolutions", seconds, "ours"),
    ]
    for name, distilled in (("ours", False), ("ours, distilling", True)):
        work = chosen.batch * flops(chosen.patch, distilled)
        rates = _measure.rates(chosen.batch, work, seconds[name], where)
        result.facts |= {f"{name}, {what}": value for what, value in rates.items()}
    _measure.finish(chosen, result)


def published_steps(count: int, side: int, device: torch.device) -> dict[str, _measure.Work]:
    """The published script's step on the same batch, and without its second forward."""
    _, network = networks(device)
    batch = crops(count, side, device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    return {
        "published": lambda: published_step(network, batch.rainy, batch.clean, optimizer),
        "published, one forward": lambda: published_step(network, batch.rainy, batch.clean, optimizer, prints=False),
    }


def networks(device: torch.device = CPU) -> tuple[PReNet, PublishedPReNet]:
    """Ours and the published one, with the same weights."""
    torch.manual_seed(0)
    ours, published = PReNet(CHANNELS, STAGES, BLOCKS), PublishedPReNet(CHANNELS, STAGES, BLOCKS)
    published.load_state_dict(ours.state_dict())
    return ours.to(device), published.to(device)


def crops(count: int, side: int, device: torch.device = CPU) -> Batch:
    """Smooth clean pictures and rainy ones, seeded."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, max(2, side // 8), max(2, side // 8), generator=generator)
    clean = F.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    rain = (torch.rand(count, 1, side, side, generator=generator) > 0.9).float() * 0.5
    return Batch((clean + rain).clamp(0, 1).to(device), clean.to(device))


def flops(side: int, distilled: bool) -> float:
    """Floating-point operations of a step on one sample: forward and backward, and the teacher's forward."""
    with torch.device("meta"):
        network, rainy = PReNet(CHANNELS, STAGES, BLOCKS), torch.empty(1, 3, side, side)
    with FlopCounterMode(display=False) as forward:
        derained = network(rainy).derained
    with FlopCounterMode(display=False) as backward:
        derained.sum().backward()
    return float((1 + distilled) * forward.get_total_flops() + backward.get_total_flops())


def step(
    network: PReNet,
    batch: Batch,
    where: Hardware,
    distilled: bool,
    micro_batch: int | None = None,
    captured: bool = True,
) -> _measure.Work:
    """A step on this batch, as in a training; `captured` is whether a GPU may replay it."""
    objective = negative_ssim.Objective(negative_ssim.Params())
    recipe = adam_multistep.Recipe(adam_multistep.Params(milestones=[], gamma=1), 1e-3, 1, 1)
    earlier = masks.nothing_consolidated(network)
    strategy: Strategy = Strategy(NoParams(), earlier, where, {}, objective)
    if distilled:
        params = nr.Params(
            alpha_l=0.008,
            tau_s=1.0,
            tau_l=10.0,
            lambda_kd=0.8,
            consolidate=True,
            rank="all",
            gradient="sample",
            samples=1,
        )
        strategy = nr.Strategy(params, earlier, where, {}, objective)
    network.train()
    strategy.before_task(network)
    parts = cuda_graphs.micro_batches(micro_batch, network, objective, where) if captured else MicroBatches(micro_batch)
    optimizer = recipe.optimizer(list(network.parameters()), fused=where.is_gpu)
    learner = Learner(network, objective, strategy, recipe, optimizer, where, parts, Trace(network))
    return lambda: training_step(learner, batch)


def gradients(batch: Batch, where: Hardware) -> dict[str, float | str]:
    """How near our gradient is to the published network's, in fp32, at the same weights."""
    ours, published = networks(batch.rainy.device)
    (-published_ssim(published(batch.rainy), batch.clean)).backward()
    derained = where.forward(ours, batch.rainy).derained
    negative_ssim.negative_ssim(derained, batch.clean).backward()
    mine, theirs = _gradient(ours), _gradient(published)
    return {
        "gradient, relative difference": float((mine - theirs).norm() / theirs.norm()),
        "gradient, cosine": float(F.cosine_similarity(mine.double(), theirs.double(), dim=0)),
    }


def _gradient(network: nn.Module) -> Tensor:
    named = sorted(network.named_parameters())
    return torch.cat([weight.grad.flatten() for _, weight in named if weight.grad is not None])


def convolutions(count: int, side: int, where: Hardware) -> _measure.Work:
    """Forward and backward of the network's convolutions and of nothing else: the floor of a step."""
    widths = [(6, CHANNELS), *[(CHANNELS, CHANNELS)] * 2 * BLOCKS, (CHANNELS, 3)]
    first, later = (CHANNELS, 3 * CHANNELS), (2 * CHANNELS, 4 * CHANNELS)
    dtype = torch.bfloat16 if where.precision == "bf16" else torch.float32

    def layer(inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, upstream = (
            torch.rand(shape, dtype=dtype, device=where.device).contiguous(memory_format=torch.channels_last)
            for shape in ((count, inputs, side, side), (outputs, inputs, 3, 3), (count, outputs, side, side))
        )
        return x.requires_grad_(), weight.requires_grad_(), upstream

    layers = {shape: layer(*shape) for shape in {*widths, first, later}}
    order = [shape for stage in range(STAGES) for shape in (*widths, later if stage else first)]

    def work() -> None:
        for shape in order:
            x, weight, upstream = layers[shape]
            torch.autograd.grad(F.conv2d(x, weight, padding=1), (x, weight), upstream)

    return work


if __name__ == "__main__":
    main()
