"""PSNR and SSIM against scikit-image, naive loops and published figures."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2ycbcr
from skimage.io import imread
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from derain.evaluation import quality
from derain.evaluation.quality import (
    PROTOCOLS,
    Quality,
    finite_mean,
    luma,
    mean_quality,
    measure,
    psnr,
    shrink,
    ssim,
    to_8_bit,
)
from derain.types import DataError, NumericError, ParamsError

DATA = Path(os.environ.get("DERAIN_DATA", Path(__file__).parents[1] / "../shared/data"))
BOTH = pytest.mark.parametrize("protocol", PROTOCOLS)


def noisy_pair(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture and a noisy copy, uint8, so that SSIM is neither near 0 nor near 1."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (-(-height // 8), -(-width // 8), 3))
    clean = np.kron(coarse, np.ones((8, 8, 1), int))[:height, :width]
    derained = np.clip(clean + random.normal(0, 20, clean.shape), 0, 255)
    return derained.astype(np.uint8), clean.astype(np.uint8)


def reference_ssim(x: np.ndarray, y: np.ndarray) -> float:
    return float(
        structural_similarity(x, y, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    )


def reference_luma(image: np.ndarray) -> np.ndarray:
    return np.asarray(rgb2ycbcr(image / 255.0)[..., 0])


@BOTH
def test_both_numbers_are_symmetric(protocol: str) -> None:
    derained, clean = noisy_pair(40, 57)
    assert psnr(derained, clean, protocol) == psnr(clean, derained, protocol)
    assert ssim(derained, clean, protocol) == ssim(clean, derained, protocol)


@BOTH
def test_identical_pictures_are_exactly_one_and_infinite(protocol: str) -> None:
    picture = noisy_pair(33, 400)[0]
    assert ssim(picture, picture.copy(), protocol) == 1
    assert psnr(picture, picture.copy(), protocol) == math.inf


@BOTH
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(11, 40), width=st.integers(11, 40))
def test_ssim_of_any_pictures_is_at_most_one_in_size(protocol: str, seed: int, height: int, width: int) -> None:
    first, second = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    assert abs(ssim(first, second, protocol)) <= 1 + 1e-12


@BOTH
def test_more_noise_is_worse(protocol: str) -> None:
    clean = noisy_pair(64, 64)[1]
    noise = np.random.default_rng(1).normal(0, 1, clean.shape)
    steps = [measure(np.clip(clean + s * noise, 0, 255).astype(np.uint8), clean, protocol) for s in (2, 8, 32)]
    assert steps == sorted(steps, reverse=True)
    assert [q.ssim for q in steps] == sorted((q.ssim for q in steps), reverse=True)


def test_psnr_of_a_known_error() -> None:
    clean = np.full((12, 12, 3), 100, np.uint8)
    assert psnr(clean + np.uint8(5), clean, "rgb") == pytest.approx(10 * math.log10(255**2 / 25), abs=1e-12)
    # Equal steps in R, G and B move studio-range Y by 219/255 of the step: 1.32 dB more at the same peak.
    gain = psnr(clean + np.uint8(5), clean, "matlab-y") - psnr(clean + np.uint8(5), clean, "rgb")
    assert gain == pytest.approx(20 * math.log10(255 / 219), abs=1e-9)


def test_psnr_of_y_with_peak_one_as_the_matlab_scripts_take_it() -> None:
    derained, clean = noisy_pair(50, 61)
    expected = peak_signal_noise_ratio(reference_luma(clean) / 255, reference_luma(derained) / 255, data_range=1)
    assert psnr(derained, clean, "matlab-y") == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("size", [(50, 61), (400, 390)])
def test_rgb_equals_scikit_image(size: tuple[int, int]) -> None:
    derained, clean = noisy_pair(*size)
    channels = [reference_ssim(derained[..., c].astype(float), clean[..., c].astype(float)) for c in range(3)]
    assert ssim(derained, clean, "rgb") == pytest.approx(np.mean(channels), abs=1e-12)
    assert psnr(derained, clean, "rgb") == pytest.approx(peak_signal_noise_ratio(clean, derained), abs=1e-9)


@pytest.mark.parametrize("size", [(11, 11), (11, 90), (321, 481), (383, 500)])
def test_y_equals_scikit_image_where_nothing_is_shrunk(size: tuple[int, int]) -> None:
    derained, clean = noisy_pair(*size)
    expected = reference_ssim(reference_luma(derained), reference_luma(clean))
    assert ssim(derained, clean, "matlab-y") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [(384, 512), (512, 385), (401, 389), (641, 643)])
def test_y_shrinks_as_matlab_does_from_a_short_side_of_384(size: tuple[int, int]) -> None:
    derained, clean = noisy_pair(*size)
    factor = {384: 2, 385: 2, 389: 2, 641: 3}[min(size)]
    small = [naively_shrunk(reference_luma(image), factor) for image in (derained, clean)]
    assert ssim(derained, clean, "matlab-y") == pytest.approx(reference_ssim(*small), abs=1e-12)


@pytest.mark.parametrize(("size", "factor"), [((897, 902), 4), ((642, 641), 3), ((385, 386), 2)])
def test_what_hangs_over_the_border_is_mirrored(size: tuple[int, int], factor: int) -> None:
    plane = np.random.default_rng(3).random(size)
    assert shrink(plane) == pytest.approx(naively_shrunk(plane, factor), abs=1e-12)


def naively_shrunk(plane: np.ndarray, factor: int) -> np.ndarray:
    """imfilter(plane, ones(f)/f^2, 'symmetric', 'same'), then (1:f:end, 1:f:end), in MATLAB's 1-based indices."""
    height, width = plane.shape
    centre = (factor + 1) // 2

    def mirrored(index: int, count: int) -> int:
        return 1 - index if index < 1 else 2 * count + 1 - index if index > count else index

    small = []
    for row in range(1, height + 1, factor):
        line = []
        for column in range(1, width + 1, factor):
            total = 0.0
            for i in range(1, factor + 1):
                for j in range(1, factor + 1):
                    r, c = mirrored(row + i - centre, height), mirrored(column + j - centre, width)
                    total += plane[r - 1, c - 1]
            line.append(total / factor**2)
        small.append(line)
    return np.array(small)


@pytest.mark.parametrize(
    ("short_side", "factor"), [(20, 1), (321, 1), (383, 1), (384, 2), (512, 2), (639, 2), (640, 3), (896, 4)]
)
def test_the_factor_rounds_halves_up_where_python_rounds_to_even(short_side: int, factor: int) -> None:
    assert shrink(np.zeros((short_side, 1000))).shape == (-(-short_side // factor), -(-1000 // factor))
    assert shrink(np.zeros((1000, short_side))).shape == (-(-1000 // factor), -(-short_side // factor))


def test_luma_equals_scikit_image_and_spans_the_studio_range() -> None:
    image = np.random.default_rng(2).random((7, 9, 3))
    assert luma(image) == pytest.approx(rgb2ycbcr(image)[..., 0] / 255, abs=1e-12)
    assert luma(np.zeros((1, 1, 3))) == pytest.approx(16 / 255)
    assert luma(np.ones((1, 1, 3))) == pytest.approx(235 / 255)


def test_to_8_bit_truncates_or_rounds_and_clamps() -> None:
    image = np.array([-0.5, 0.0, 0.999 / 255, 1.5 / 255, 1.6 / 255, 254.9 / 255, 1.0, 1.7], np.float64)
    assert to_8_bit(image, "truncate").tolist() == [0, 0, 0, 1, 1, 254, 255, 255]
    assert to_8_bit(image, "nearest").tolist() == [0, 0, 1, 2, 2, 255, 255, 255]


@pytest.mark.parametrize("rounding", ["truncate", "nearest"])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_a_network_that_changes_nothing_changes_no_grey_level(rounding: quality.Rounding, precision: type) -> None:
    levels = np.arange(256, dtype=np.uint8)
    assert (to_8_bit(levels.astype(precision) / precision(255), rounding) == levels).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_to_8_bit_refuses_values_that_are_not_finite(value: float) -> None:
    with pytest.raises(NumericError, match="not finite"):
        to_8_bit(np.array([0.5, value]), "nearest")


@BOTH
def test_pictures_of_different_sizes_are_refused_with_both_sizes(protocol: str) -> None:
    with pytest.raises(DataError, match="20x30 and 21x30"):
        measure(np.zeros((30, 20, 3), np.uint8), np.zeros((30, 21, 3), np.uint8), protocol)


@BOTH
@pytest.mark.parametrize("shape", [(10, 40, 3), (40, 10, 3), (1, 1, 3)])
def test_pictures_smaller_than_the_window_are_refused(protocol: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=f"{shape[1]}x{shape[0]} is too small"):
        ssim(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), protocol)


@pytest.mark.parametrize(
    "picture", [np.zeros((20, 20, 3)), np.zeros((20, 20), np.uint8), np.zeros((20, 20, 4), np.uint8)]
)
def test_anything_but_8_bit_rgb_is_a_mistake_of_the_caller(picture: np.ndarray) -> None:
    with pytest.raises(TypeError, match="uint8"):
        psnr(picture, picture, "rgb")


def test_an_unknown_protocol_names_those_there_are() -> None:
    with pytest.raises(ParamsError, match=r"'y'.*matlab-y, rgb"):
        psnr(*noisy_pair(20, 20), "y")


def test_the_mean_is_plain_and_a_finite_one_names_the_picture_that_forbids_it() -> None:
    scores = {"a": Quality(20.0, 0.5), "b": Quality(30.0, 0.9)}
    assert mean_quality(scores) == finite_mean(scores)
    assert mean_quality(scores) == pytest.approx((25.0, 0.7))
    scores["c"] = Quality(math.inf, 1.0)
    assert mean_quality(scores).psnr == math.inf
    with pytest.raises(NumericError, match=r"^c: "):
        finite_mean(scores)
    with pytest.raises(ValueError, match="no picture"):
        mean_quality({})


@pytest.mark.parametrize(("folder", "full_set"), [("rain100h_dev", (13.56, 0.379)), ("rain100l_dev", (26.90, 0.838))])
def test_rainy_inputs_score_what_is_published(folder: str, full_set: tuple[float, float]) -> None:
    """The full 100 pairs give `full_set`; the 20 at hand must lie near, and be what scikit-image makes of them."""
    if not (DATA / folder).is_dir():
        pytest.skip(f"{DATA / folder} is absent: name a folder with the development data in DERAIN_DATA")
    scores, reference = {}, []
    for path in sorted((DATA / folder / "rainy").iterdir()):
        rainy, clean = imread(path), imread(DATA / folder / "clean" / path.name)
        scores[path.name] = measure(rainy, clean, "matlab-y")
        y_rainy, y_clean = reference_luma(rainy), reference_luma(clean)
        ratio = peak_signal_noise_ratio(y_clean, y_rainy, data_range=255)
        reference.append((ratio, reference_ssim(y_rainy, y_clean)))
    assert len(scores) == 20
    mean = finite_mean(scores)
    assert tuple(mean) == pytest.approx(tuple(np.mean(reference, axis=0)), abs=1e-9)
    assert mean.psnr == pytest.approx(full_set[0], abs=1)
    assert mean.ssim == pytest.approx(full_set[1], abs=0.05)
