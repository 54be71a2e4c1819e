"""The importance pass, one gradient a sample, against a loop over single samples with the published network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from benchmarks import _measure
from benchmarks._measure import Result
from benchmarks.baseline import PublishedPReNet, published_ssim
from benchmarks.data import packed
from benchmarks.training_step import networks
from derain import console
from derain.compute.batch import Batch
from derain.objectives import negative_ssim
from derain.training import crops, masks
from derain.training.importance import mean_absolute_gradient

PROPORTION = masks.consolidated_proportion(0, 0.008, 1, 10)
"""P(0) of the paper's values: the largest mask."""


def main() -> None:
    chosen = _measure.arguments("importance", __doc__, batch=18, patch=100)
    where = _measure.hardware(chosen)
    ours, _ = networks(where.device)
    objective = negative_ssim.Objective(negative_ssim.Params())
    with packed() as pack, quietly():
        samples = crops.for_importance(pack, chosen.patch, 0, 0, chosen.batch, 1, where.device)
        works: dict[str, _measure.Work] = {"ours": lambda: mean_absolute_gradient(ours, samples, where, objective)}
        if chosen.ours_only:
            seconds = _measure.interleaved(works, chosen.steps)
        else:
            singles = [Batch(single.rainy.cpu(), single.clean.cpu()) for single in samples]
            mine, theirs = (work() for work in (works["ours"], published_loop(singles, where.device)["published"]))
            with _measure.elsewhere(published_loop, singles, where.device) as published:
                seconds = _measure.interleaved({**works, **published}, chosen.steps)
    if chosen.ours_only:
        _measure.ours_only(chosen, seconds["ours"])
        return
    difference = (_joined(mine, theirs) - _joined(theirs, theirs)).norm() / _joined(theirs, theirs).norm()
    result = Result(f"importance, {chosen.batch} samples, {chosen.precision}", vars(chosen) | {"json": None})
    result.facts = {
        "importance, relative difference": float(difference),
        "masks, share of weights that agree": _agreement(mine, theirs),
    }
    result.rows = [_measure.compared("importance pass", "published", seconds, "ours")]
    _measure.finish(chosen, result)


@contextmanager
def quietly() -> Iterator[None]:
    """Without the pass's own progress."""
    console.out.quiet = True
    try:
        yield
    finally:
        console.out.quiet = False


def published_loop(singles: list[Batch], device: torch.device) -> dict[str, _measure.Work]:
    """The published network's loop over the same samples."""
    _, network = networks(device)
    there = [Batch(single.rainy.to(device), single.clean.to(device)) for single in singles]
    return {"published": lambda: plain_loop(network, there)}


def plain_loop(network: PublishedPReNet, singles: list[Batch]) -> dict[str, Tensor]:
    """Mean |gradient| of the published network's loss, sample by sample (Eq. 1 of Neural Reorganization)."""
    total = {name: torch.zeros_like(weight) for name, weight in network.named_parameters()}
    for single in singles:
        network.zero_grad()
        (-published_ssim(network(single.rainy), single.clean)).backward()
        for name, weight in network.named_parameters():
            assert weight.grad is not None
            total[name] += weight.grad.abs()
    return {name: value / len(singles) for name, value in total.items()}


def _joined(values: dict[str, Tensor], order: dict[str, Tensor]) -> Tensor:
    return torch.cat([values[name].flatten() for name in order])


def _agreement(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    nothing = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in theirs.items()}
    one, other = (
        masks.most_important({name: of[name].cpu() for name in theirs}, PROPORTION, "all", nothing)
        for of in (mine, theirs)
    )
    same = sum(int((one[name] == other[name]).sum()) for name in theirs)
    return same / sum(value.numel() for value in theirs.values())


if __name__ == "__main__":
    main()
