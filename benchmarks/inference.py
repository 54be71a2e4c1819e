"""One picture through the network, against the published network in fp32, and how far the 8-bit pictures are apart."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from benchmarks import _measure
from benchmarks._measure import Result
from benchmarks.training_step import crops, networks
from derain.compute.forward import forward, fused


def main() -> None:
    chosen = _measure.arguments("inference", __doc__, size="481x321")
    where = _measure.hardware(chosen)
    ours = fused(networks(where.device)[0].eval().requires_grad_(False), where)
    width, height = map(int, chosen.size.split("x"))
    given = picture(width, height).numpy()
    works: dict[str, _measure.Work] = {"ours": lambda: forward(ours, given, where)}
    if chosen.ours_only:
        _measure.ours_only(chosen, _measure.interleaved(works, chosen.steps)["ours"])
        return
    baseline = published_picture(width, height, where.device)["published"]
    mine, theirs = (np.rint(np.clip(work(), 0, 1) * 255) for work in (works["ours"], baseline))
    error = float(((mine - theirs) ** 2).mean())
    facts: dict[str, float | str] = {
        "8-bit pictures, largest difference": float(np.abs(mine - theirs).max()),
        "8-bit pictures, PSNR to the published network in dB": 10 * math.log10(255**2 / error) if error else "infinite",
    }
    with _measure.elsewhere(published_picture, width, height, where.device) as published:
        seconds = _measure.interleaved({**works, **published}, chosen.steps)
    result = Result(f"inference {chosen.size}, {chosen.precision}", vars(chosen) | {"json": None}, facts=facts)
    result.rows = [_measure.compared("one picture", "published", seconds, "ours")]
    _measure.finish(chosen, result)


def picture(width: int, height: int) -> Tensor:
    return crops(1, max(width, height)).rainy[:, :, :height, :width].contiguous()


def published_picture(width: int, height: int, device: torch.device) -> dict[str, _measure.Work]:
    """The published network on the same picture."""
    network = networks(device)[1].eval().requires_grad_(False)
    rainy = picture(width, height)

    def work() -> np.ndarray:
        with torch.no_grad():
            return np.asarray(network(rainy.to(device)).cpu())

    return {"published": work}


if __name__ == "__main__":
    main()
