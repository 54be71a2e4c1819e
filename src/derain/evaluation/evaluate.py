"""The quality of the network after each task on one test set: a column of the matrix "after task i, on test set j"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import nn

from derain.compute import distributed
from derain.compute.forward import estimate
from derain.console import track
from derain.evaluation import quality
from derain.evaluation.quality import INPUT, PROTOCOLS, Quality, RowScores, Scores
from derain.types import DataError, Pair

if TYPE_CHECKING:
    from derain.compute.hardware import Hardware
    from derain.data.pack import Pack


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
        The scores by task, with `INPUT` for the rainy pictures themselves, and the pairs to show. Several processes
        divide the pictures among themselves; each returns the whole.
    """
    own = [
        _evaluated(pack.pair(index), networks, hardware, index < shown)
        for index in track(distributed.dealt(len(pack)), "evaluating, picture")
    ]
    pictures = distributed.in_order(own)
    scores: dict[str, RowScores] = {
        row: {protocol: {picture.name: picture.scores[row][protocol] for picture in pictures} for protocol in PROTOCOLS}
        for row in (INPUT, *networks)
    }
    return scores, [picture.shown for picture in pictures if picture.shown]


class _Evaluated(NamedTuple):
    """A test pair's scores by row and protocol, and its pictures if it is to be shown."""

    name: str
    scores: Mapping[str, Mapping[str, Quality]]
    shown: Shown | None


def _evaluated(pair: Pair, networks: Mapping[str, nn.Module], hardware: Hardware, show: bool) -> _Evaluated:
    _check(pair)
    estimates = {INPUT: pair.rainy.astype(np.float32) / 255}
    estimates |= {task: estimate(network, pair.rainy, hardware) for task, network in networks.items()}
    scores = {
        row: {
            name: quality.measure(quality.to_8_bit(estimated, protocol.rounding), pair.clean, name)
            for name, protocol in PROTOCOLS.items()
        }
        for row, estimated in estimates.items()
    }
    derained = {task: quality.to_8_bit(estimates[task], "nearest") for task in networks} if show else {}
    return _Evaluated(pair.name, scores, Shown(pair, derained) if show else None)


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
