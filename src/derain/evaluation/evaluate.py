"""The quality of the network after each task on one test set: a column of the matrix "after task i, on test set j"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import nn

from derain.console import track
from derain.evaluation import quality
from derain.evaluation.quality import INPUT, PROTOCOLS, Quality, RowScores, Scores
from derain.inference import estimate
from derain.types import DataError, Pair

if TYPE_CHECKING:
    from derain.data.pack import Pack
    from derain.hardware import Hardware


class Shown(NamedTuple):
    """A test pair with its derained versions by task, 8-bit RGB, for the report."""

    pair: Pair
    derained: Mapping[str, np.ndarray]


def evaluate(
    pack: Pack, networks: Mapping[str, nn.Module], hardware: Hardware, shown: int
) -> tuple[dict[str, RowScores], list[Shown]]:
    """Scores every network on every pair of a test split, whole pictures, under every protocol.

    Args:
        pack: the test split.
        networks: the network after each task, by the task's name.
        hardware: where they are, and the precision they run in.
        shown: how many pairs to return with their derained pictures.

    Returns:
        The scores by task, with `INPUT` for the rainy pictures themselves, and the pairs to show.
    """
    scores: dict[str, dict[str, dict[str, Quality]]] = {
        row: {protocol: {} for protocol in PROTOCOLS} for row in (INPUT, *networks)
    }
    examples = []
    for index in track(range(len(pack)), "evaluating, picture"):
        pair = pack.pair(index)
        _check(pair)
        estimates = {INPUT: pair.rainy.astype(np.float32) / 255}
        estimates |= {task: estimate(network, pair.rainy, hardware) for task, network in networks.items()}
        for row, estimated in estimates.items():
            for name, protocol in PROTOCOLS.items():
                picture = quality.to_8_bit(estimated, protocol.rounding)
                scores[row][name][pair.name] = quality.measure(picture, pair.clean, name)
        if index < shown:
            derained = {task: quality.to_8_bit(estimates[task], "nearest") for task in networks}
            examples.append(Shown(pair, derained))
    return dict(scores), examples


def _check(pair: Pair) -> None:
    if np.array_equal(pair.rainy, pair.clean):
        raise DataError(
            f"{pair.name}: the rainy picture equals the clean one, PSNR is infinite. Remove it from the set."
        )
    if min(pair.clean.shape[:2]) < quality.WINDOW:
        height, width = pair.clean.shape[:2]
        raise DataError(f"{pair.name}: {width}x{height} pixels are too few for SSIM's window. Remove it from the set.")


def means(pictures: Mapping[str, Quality]) -> dict[str, float]:
    """The mean PSNR (dB) and SSIM over the pictures of a set."""
    mean = quality.finite_mean(pictures)
    return {"psnr": mean.psnr, "ssim": mean.ssim}


def as_lists(scores: Scores) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Scores as JSON: by task, protocol and picture, [PSNR, SSIM]."""
    return {
        row: {name: {picture: list(value) for picture, value in of.items()} for name, of in protocols.items()}
        for row, protocols in scores.items()
    }
