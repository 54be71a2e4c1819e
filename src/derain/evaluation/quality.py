"""PSNR and SSIM of 8-bit pictures, under named protocols, in NumPy float64.

One number depends on many conventions (channel, range, rounding, window, border, down-sampling), so every function
takes the name of a protocol of `PROTOCOLS`, whose description belongs beside the number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from derain.types import DataError, NumericError, ParamsError

Picture = NDArray[np.uint8]
"""8-bit RGB, shape (height, width, 3)."""
Plane = NDArray[np.float64]
"""One channel on the 8-bit scale, shape (height, width)."""
Rounding = Literal["truncate", "nearest"]

PEAK = 255.0
"""The largest value of an 8-bit picture; the L of SSIM."""

# Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity",
# IEEE TIP 13(4), 2004, section III.C: an 11x11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03.
WINDOW = 11
_C1 = (0.01 * PEAK) ** 2
_C2 = (0.03 * PEAK) ** 2
_WEIGHTS = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * 1.5**2))
_WEIGHTS /= _WEIGHTS.sum()

# The short side that ssim.m, the MATLAB script of the authors of SSIM, brings pictures near to before it compares them.
_SSIM_SHORT_SIDE = 256


class Quality(NamedTuple):
    """How near a derained picture is to its clean one.

    `psnr` is in dB, higher is better, infinite for identical pictures; `ssim` lies in [-1, 1], 1 for identical ones.
    """

    psnr: float
    ssim: float


INPUT = "input"
"""The row of the scores that doing nothing gives: the rainy pictures themselves."""
RowScores = Mapping[str, Mapping[str, Quality]]
"""The quality of one row (doing nothing, or the network after a task) on one test set: by protocol and picture."""
Scores = Mapping[str, RowScores]
"""The quality on one test set by row, `INPUT` or a task's name."""


@dataclass(frozen=True)
class Protocol:
    """A set of conventions under which PSNR and SSIM are comparable.

    `description` is one line for the reader of a number; `rounding` is how a network's output becomes 8-bit pictures
    (see `to_8_bit`); `planes` gives the channels that are compared, on the 8-bit scale; `ssim_shrinks` says whether
    SSIM first shrinks large pictures, as ssim.m does (see `shrink`).
    """

    description: str
    rounding: Rounding
    planes: Callable[[Picture], list[Plane]]
    ssim_shrinks: bool


def luma(image: NDArray[Any]) -> Plane:
    """The Y of MATLAB's rgb2ycbcr: RGB in [0, 1], shape (height, width, 3), to Y in [16/255, 235/255].

    The weights are those of ITU-R BT.601 in studio range (footroom 16, excursion 219).
    """
    weighted = np.asarray(image, np.float64) @ np.array([65.481, 128.553, 24.966])
    return np.asarray((16.0 + weighted) / 255.0)


def _luma_plane(image: Picture) -> list[Plane]:
    return [luma(image / PEAK) * PEAK]


def _rgb_planes(image: Picture) -> list[Plane]:
    return [np.ascontiguousarray(image[..., channel], np.float64) for channel in range(3)]


PROTOCOLS: Mapping[str, Protocol] = {
    "matlab-y": Protocol(
        "Y of BT.601 (MATLAB rgb2ycbcr, 16..235) of truncated 8-bit pictures; PSNR of peak 255; "
        "SSIM 11x11 Gaussian, sigma 1.5, no padding, shrunk to a short side near 256 (ssim.m)",
        rounding="truncate",
        planes=_luma_plane,
        ssim_shrinks=True,
    ),
    "rgb": Protocol(
        "all three RGB channels of rounded 8-bit pictures; PSNR of peak 255 over all of them; "
        "SSIM 11x11 Gaussian, sigma 1.5, no padding, full size, mean over the channels",
        rounding="nearest",
        planes=_rgb_planes,
        ssim_shrinks=False,
    ),
}
"""The protocols by name.

`matlab-y` is what PReNet's evaluation scripts compute, and with them most of the field: there Y lies in [0, 1] and the
peak of PSNR is 1, which is the same number as Y on the 8-bit scale with peak 255.
"""


def protocol_named(name: str) -> Protocol:
    """The protocol of that name; raises ParamsError, naming those there are."""
    if name not in PROTOCOLS:
        raise ParamsError(f"protocol is '{name}'; it must be one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def to_8_bit(image01: NDArray[np.floating[Any]], rounding: Rounding) -> Picture:
    """A picture of any shape in nominally [0, 1] as 8-bit values, clamped first.

    "truncate" drops the fraction of 255 x, as PReNet's test script does before the published numbers are taken; it
    darkens by half a grey level on average. "nearest" rounds, for pictures that people look at. The product is taken in
    the array's own precision, in which an 8-bit value divided by 255 comes back unchanged from both.
    Raises NumericError where the picture is not finite.
    """
    if not np.isfinite(image01).all():
        raise NumericError("the derained picture holds a value that is not finite; the network's weights are damaged")
    scaled = 255 * np.clip(image01, 0, 1)
    return np.asarray(np.rint(scaled) if rounding == "nearest" else scaled, np.uint8)


def measure(derained: Picture, clean: Picture, protocol: str) -> Quality:
    """PSNR and SSIM of one picture; see `psnr` and `ssim`."""
    return Quality(psnr(derained, clean, protocol), ssim(derained, clean, protocol))


def psnr(derained: Picture, clean: Picture, protocol: str) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(255^2 / MSE) over all compared values.

    Both pictures are uint8 of shape (height, width, 3), RGB. Identical pictures give infinity, which is the definition:
    no cap and no epsilon. A mean that must be finite goes through `finite_mean`.
    Raises DataError for pictures of different sizes, ParamsError for an unknown protocol.
    """
    compared = _compared(derained, clean, protocol_named(protocol))
    squared_error = fmean(float(np.mean((x - y) ** 2)) for x, y in compared)
    return math.inf if squared_error == 0 else 10 * math.log10(PEAK**2 / squared_error)


def ssim(derained: Picture, clean: Picture, protocol: str) -> float:
    """Structural similarity, mean over the picture and over the compared channels.

    Both pictures are uint8 of shape (height, width, 3), RGB. Wang et al. 2004, Eq. 13, with their Gaussian window, and
    only where the whole window lies inside the picture.
    Raises DataError for pictures of different sizes or smaller than the window, ParamsError for an unknown protocol.
    """
    conventions = protocol_named(protocol)
    compared = _compared(derained, clean, conventions)
    if min(clean.shape[:2]) < WINDOW:
        height, width = clean.shape[:2]
        raise DataError(f"a picture of {width}x{height} is too small for SSIM; both sides need {WINDOW} pixels")
    if conventions.ssim_shrinks:
        compared = [(shrink(x), shrink(y)) for x, y in compared]
    return fmean(_ssim_of_planes(x, y) for x, y in compared)


def mean_quality(qualities: Mapping[str, Quality]) -> Quality:
    """The plain mean over pictures by name; its PSNR is infinite where one picture's is. Empty is a ValueError."""
    if not qualities:
        raise ValueError("no picture to take the mean of")
    return Quality(fmean(q.psnr for q in qualities.values()), fmean(q.ssim for q in qualities.values()))


def finite_mean(qualities: Mapping[str, Quality]) -> Quality:
    """The plain mean over pictures by name, for metrics files, which can hold no infinity.

    Raises NumericError naming the first picture that is identical to its clean one.
    """
    for name, quality in qualities.items():
        if math.isinf(quality.psnr):
            raise NumericError(
                f"{name}: the picture equals its clean one, so its PSNR is infinite and no mean can be taken; "
                "is a folder compared with itself?"
            )
    return mean_quality(qualities)


def shrink(plane: Plane) -> Plane:
    """The automatic down-sampling of ssim.m, which its authors advise before SSIM is taken.

    With f = max(1, round(short side / 256)), halves rounded up: a mean over f x f pixels at every f-th one. So it
    begins at a short side of 384. MATLAB's imfilter centres a window on its element floor((f + 1) / 2), counted from 1,
    so that a window of 2 begins at the pixel itself; borders are mirrored with the edge repeated.
    """
    factor = max(1, math.floor(min(plane.shape) / _SSIM_SHORT_SIDE + 0.5))
    if factor == 1:
        return plane
    before = (factor + 1) // 2 - 1
    counts = [-(-side // factor) for side in plane.shape]
    rows, columns = (count * factor for count in counts)
    padded = np.pad(plane, (before, factor), mode="symmetric")[:rows, :columns]
    return np.asarray(padded.reshape(counts[0], factor, counts[1], factor).mean(axis=(1, 3)))


def _compared(derained: Picture, clean: Picture, protocol: Protocol) -> list[tuple[Plane, Plane]]:
    for image in (derained, clean):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise TypeError(f"expected uint8 of shape (height, width, 3), got {image.dtype} of shape {image.shape}")
    if derained.shape != clean.shape:
        sizes = " and ".join(f"{image.shape[1]}x{image.shape[0]}" for image in (derained, clean))
        raise DataError(f"the two pictures differ in size: {sizes}; compare pictures of one size")
    return list(zip(protocol.planes(derained), protocol.planes(clean), strict=True))


def _ssim_of_planes(x: Plane, y: Plane) -> float:
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance = _window_mean(x * y) - product
    variances = _window_mean(x**2 + y**2) - squares
    similarity = (2 * product + _C1) * (2 * covariance + _C2) / ((squares + _C1) * (variances + _C2))
    return float(similarity.mean())


def _window_mean(plane: Plane) -> Plane:
    """The Gaussian-weighted mean at each place where the whole window lies inside the plane."""
    from scipy.ndimage import correlate1d  # takes 0.4 s, and `derain --help` names the protocols

    inside = slice(WINDOW // 2, -(WINDOW // 2))
    return np.asarray(correlate1d(correlate1d(plane, _WEIGHTS, 0)[inside], _WEIGHTS, 1)[:, inside])
