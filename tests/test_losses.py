"""Negative SSIM against scikit-image and against finite differences."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from derain.objectives.negative_ssim import negative_ssim
from tests.conftest import random_batch


def test_value_against_scikit_image_on_a_zero_padded_picture() -> None:
    rainy, clean = random_batch(0, count=1, size=24)
    x, y = (np.pad(image[0].numpy().astype(np.float64), ((0, 0), (5, 5), (5, 5))) for image in (rainy, clean))
    per_channel = []
    for channel in range(3):
        _, full = structural_similarity(
            x[channel],
            y[channel],
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
            full=True,
        )
        per_channel.append(full[5:-5, 5:-5].mean())
    assert -negative_ssim(rainy, clean).item() == pytest.approx(np.mean(per_channel), abs=2e-6)


def test_equal_pictures_give_minus_one_and_others_more() -> None:
    rainy, clean = random_batch(1)
    assert negative_ssim(clean, clean).item() == pytest.approx(-1, abs=1e-6)
    assert -1 < negative_ssim(rainy, clean).item() < 0
    assert negative_ssim(rainy, clean).item() == pytest.approx(negative_ssim(clean, rainy).item(), abs=1e-6)


def test_gradient_against_finite_differences() -> None:
    rainy, clean = random_batch(2, count=1, size=12)
    rainy.requires_grad_()
    negative_ssim(rainy, clean).backward()
    assert rainy.grad is not None
    step = 1e-2
    for place in [(0, 0, 0, 0), (0, 1, 5, 6), (0, 2, 11, 3)]:
        ahead, behind = rainy.detach().clone(), rainy.detach().clone()
        ahead[place] += step
        behind[place] -= step
        slope = (negative_ssim(ahead, clean) - negative_ssim(behind, clean)) / (2 * step)
        assert rainy.grad[place].item() == pytest.approx(slope.item(), rel=2e-2, abs=2e-5)


def test_under_autocast_it_stays_in_fp32() -> None:
    rainy, clean = random_batch(3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(negative_ssim(rainy, clean), negative_ssim(rainy, clean).float())
        assert negative_ssim(rainy, clean).item() == negative_ssim(rainy.float(), clean).item()
