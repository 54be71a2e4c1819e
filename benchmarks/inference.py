"""One picture through the network, against the published network in fp32, and how far the 8-bit pictures are apart."""

from __future__ import annotations

import math

import numpy as np
import torch

from benchmarks import _measure
from benchmarks._measure import Result
from benchmarks.training_step import crops, networks
from derain.inference import forward


def main() -> None:
    chosen = _measure.arguments("inference", __doc__, size="481x321")
    where = _measure.hardware(chosen)
    ours, published = (network.eval().requires_grad_(False) for network in networks(where.device))
    width, height = map(int, chosen.size.split("x"))
    picture = crops(1, max(width, height)).rainy[:, :, :height, :width].contiguous()
    given = picture.numpy()
    works: dict[str, _measure.Work] = {"ours": lambda: forward(ours, given, where)}
    if chosen.ours_only:
        _measure.ours_only(_measure.interleaved(works, chosen.steps)["ours"])
        return

    def baseline() -> np.ndarray:
        with torch.no_grad():
            return np.asarray(published(picture.to(where.device)).cpu())

    works["published"] = baseline
    mine, theirs = (np.rint(np.clip(work(), 0, 1) * 255) for work in (works["ours"], baseline))
    error = float(((mine - theirs) ** 2).mean())
    facts: dict[str, float | str] = {
        "8-bit pictures, largest difference": float(np.abs(mine - theirs).max()),
        "8-bit pictures, PSNR to the published network in dB": 10 * math.log10(255**2 / error) if error else "infinite",
    }
    seconds = _measure.interleaved(works, chosen.steps)
    result = Result(f"inference {chosen.size}, {chosen.precision}", vars(chosen) | {"json": None}, facts=facts)
    result.rows = [_measure.compared("one picture", "published", seconds, "ours")]
    _measure.finish(chosen, result)


if __name__ == "__main__":
    main()
