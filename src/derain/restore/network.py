"""A trained network as a function from rainy to derained pictures of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from derain.restore import tiles
from derain.types import DataError, NumericError, ParamsError, SpaceError

if TYPE_CHECKING:
    from torch import nn

    from derain.compute.hardware import Hardware

DEFAULT_MEMORY = 1_250_000_000
"""Bytes: with torch itself, 4K pictures stay below 2.5 GB and 8K pictures below 3 GB."""

_BLENDED = 64
"""The overlap in pixels where no overlap makes tiles exact."""

_FRAGMENTATION = {"cpu": 2.5, "cuda": 1.25}
"""Memory taken for each byte that tensors hold; measured with PReNet: 1.5 to 2.5 where glibc keeps freed memory."""

_UNKNOWN = tiles.Taken(4096.0)
"""Of a network that does not tell: what PReNet of the paper's size takes."""


class Forward(Protocol):
    """A network on NumPy arrays: pictures (N, 3, H, W), float32, in [0, 1], to estimates of the same shape.

    `receptive_radius` is how far a pixel of the estimate sees; None: everything. May say in `taken` what memory a
    picture takes, in `memory` how many bytes there are, and in `side_multiple` of which number it makes sides
    multiples. Raises MemoryError where the pictures do not fit.
    """

    def describe(self) -> Mapping[str, str | int]:
        """What decides the last bits of an estimate besides the weights: device, precision, versions."""
        ...

    @property
    def receptive_radius(self) -> int | None: ...

    def __call__(self, batch: NDArray[np.float32], /) -> NDArray[np.float32]: ...


class Network:
    """A trained network ready for pictures of any size; one load serves many pictures.

    Pictures that would take more memory than allowed are restored in tiles (see `derain.restore.tiles`), which give
    what the whole picture would have given, but for rounding. `derain.load` makes one.
    """

    def __init__(
        self, forward: Forward, tile: int | None = None, overlap: int | None = None, max_memory: int | None = None
    ) -> None:
        """See `load`."""
        for name, value, least in (("tile", tile, 1), ("overlap", overlap, 0), ("max_memory", max_memory, 1)):
            if value is not None and value < least:
                raise ParamsError(f"{name}: {value} is not allowed. It must be at least {least}.")
        self._forward = forward
        self._tile, self._overlap, self._max_memory = tile, overlap, max_memory
        self._asked = {"tile": tile, "overlap": overlap, "max_memory": max_memory}

    def describe(self) -> dict[str, str | int | None]:
        """How it computes, but for the weights: two that are described equally give equal pictures.

        But for rounding, where memory ran out in one of them, or a GPU has less to spare: tiles are smaller then.
        """
        return {**self._forward.describe(), **self._asked}

    def restore(self, rainy: NDArray[Any], progress: Callable[[int, int], None] | None = None) -> NDArray[Any]:
        """The derained picture, of the shape and dtype of the rainy one.

        A grey picture is given to the network as three equal channels, whose estimates are averaged. Where memory runs
        out nevertheless, the tiles are halved, for this picture and later ones.

        Args:
            rainy: shape (H, W, 3), RGB, or (H, W), grey; uint8, uint16, or float32 in [0, 1].
            progress: called after each tile with the number of tiles done and of all.

        Returns:
            The derained picture: float32 clamped to [0, 1], integers rounded to the nearest.

        Raises:
            DataError: the picture has another shape, dtype or range.
            SpaceError: it does not fit into memory, not even in the smallest tiles.
            NumericError: the network's estimate is not finite.
        """
        _check(rainy)
        while True:
            core = None
            try:
                core = self._core(rainy)
                return self._restore(rainy, core, progress)
            except MemoryError:
                if core is None or max(core) <= self._grid:
                    raise SpaceError(
                        f"{_size(rainy)} pixels do not fit into memory, not even in the smallest tiles. Close other "
                        "programs, or use the CPU, another precision, or a smaller overlap."
                    ) from None
            self._tile = max(core) // 2

    def _restore(
        self, rainy: NDArray[Any], core: tiles.Core, progress: Callable[[int, int], None] | None
    ) -> NDArray[Any]:
        white = np.float32(_WHITE[rainy.dtype])
        derained = np.empty_like(rainy, order="C")

        def estimate(rows: slice, columns: slice) -> NDArray[np.float32]:
            part = rainy[rows, columns]
            channels = np.moveaxis(part, -1, 0) if rainy.ndim == 3 else np.broadcast_to(part, (3, *part.shape))
            # Divided in NumPy, so that integer levels are the same numbers on every device.
            answer: NDArray[np.float32] = np.moveaxis(
                self._forward((channels.astype(np.float32) / white)[None])[0], 0, -1
            )
            if not np.isfinite(answer).all():
                raise NumericError("the derained picture holds a value that is not finite; the weights are damaged.")
            return answer

        def finish(rows: slice, estimates: NDArray[np.float32]) -> None:
            levels = estimates if rainy.ndim == 3 else estimates.mean(axis=-1)
            np.clip(levels, 0, 1, out=levels)
            if rainy.dtype != np.float32:
                levels *= white
                np.rint(levels, out=levels)
            derained[rows] = levels

        height, width = rainy.shape[:2]
        whole = core == (height, width)
        tiles.join(height, width, core, tiles.Reach(0, 0) if whole else self._reach, estimate, finish, progress)
        return derained

    def _core(self, rainy: NDArray[Any]) -> tiles.Core:
        """What each tile answers for: the whole picture where it fits."""
        height, width = rainy.shape[:2]
        if self._tile is not None:
            return tiles.Core(min(self._tile, height), min(self._tile, width))
        # The default leaves room for the result of a picture of any size; a bound that was asked for includes it.
        default: int = getattr(self._forward, "memory", DEFAULT_MEMORY)
        memory = default if self._max_memory is None else self._max_memory - rainy.nbytes
        whole = tiles.Core(height, width)
        if tiles.memory(height, width, whole, tiles.Reach(0, 0), self._taken) <= memory:
            return whole
        core = tiles.fit(height, width, self._reach, self._taken, memory)
        if core is None:
            smallest = tiles.Core(self._grid, self._grid)
            least = tiles.memory(height, width, smallest, self._reach, self._taken) + rainy.nbytes
            raise DataError(
                f"{_size(rainy)} pixels take {least / 1e6:.0f} MB in the smallest tiles: raise max_memory, or give a "
                "smaller overlap."
            )
        return core

    @cached_property
    def _reach(self) -> tiles.Reach:
        radius = self._forward.receptive_radius
        overlap = self._overlap
        if overlap is None:
            overlap = _BLENDED if radius is None else radius
        exact = radius is not None and overlap >= radius
        return tiles.Reach(overlap, 0 if exact else overlap, self._grid)

    @property
    def _taken(self) -> tiles.Taken:
        taken: tiles.Taken = getattr(self._forward, "taken", _UNKNOWN)
        return taken

    @property
    def _grid(self) -> int:
        return math.lcm(tiles.GRID, getattr(self._forward, "side_multiple", 1))


class _Torch:
    """A `Forward` by torch."""

    def __init__(self, network: nn.Module, where: Hardware, memory: int) -> None:
        from derain.compute.forward import fused

        self._network, self._where, self.memory = network, where, memory
        self._fused = fused(network, where)

    def __call__(self, batch: NDArray[np.float32], /) -> NDArray[np.float32]:
        from derain.compute.forward import forward

        return forward(self._fused, batch, self._where)

    def describe(self) -> Mapping[str, str | int]:
        return self._where.describe()

    @property
    def side_multiple(self) -> int:
        return int(getattr(self._network, "side_multiple", 1))

    @cached_property
    def taken(self) -> tiles.Taken:
        from derain.restore.probe import taken

        more = _FRAGMENTATION[self._where.device.type]
        return tiles.Taken(*(more * value for value in taken(self._network, self._where)))

    @cached_property
    def receptive_radius(self) -> int | None:
        from derain.restore.probe import receptive_radius

        return receptive_radius(self._network, self._where.device, self.memory / self.taken.pixel)


def load(
    weights: str | Path,
    device: str = "auto",
    precision: str = "auto",
    tile: int | None = None,
    overlap: int | None = None,
    max_memory: int | None = None,
) -> Network:
    """A trained network, ready to take the rain off pictures.

    Makes torch deterministic from then on, and keeps freed memory in the process (glibc's mallopt): giving it back and
    getting it again at each layer takes as long as the network itself.

    Args:
        weights: a model of this project (.safetensors), a published PReNet checkpoint (.pth), or an exported .onnx,
            which runs on the CPU in fp32.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
        precision: `auto` (bf16 where the hardware computes in it natively), `fp32` or `bf16`.
        tile: side in pixels of the square that each tile answers for; it sees `overlap` more on each side. None: the
            largest that `max_memory` allows.
        overlap: pixels. None: the network's receptive radius, which makes tiles exact; 64 for one that sees everything.
        max_memory: bytes that a picture may take above what the process holds, its result included. None: 1.25 GB on
            the CPU, four fifths of what is free on a GPU, and the result.

    Raises:
        DataError: the file is missing or damaged, or belongs to another network.
        ParamsError: the device is not there, or a value is not allowed.
    """
    weights = Path(weights)
    if weights.suffix == ".onnx":
        if device not in {"auto", "cpu"} or precision not in {"auto", "fp32"}:
            raise ParamsError(f"{weights} runs on the CPU in fp32: leave device and precision at auto.")
        from derain.restore import onnx

        return Network(onnx.forward(weights), tile, overlap, max_memory)
    import torch

    from derain.compute import hardware
    from derain.disk import networks

    where = hardware.choose(device, precision)
    where.set_up_process()
    network = networks.load_network(weights, where.device)
    # A fused ReLU would make 0 of what is no number, and the picture would not show it.
    if not all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values()):
        raise DataError(f"{weights} is damaged: it holds weights that are not finite. Train or fetch it again.")
    default = int(0.8 * torch.cuda.mem_get_info(where.device)[0]) if where.is_gpu else DEFAULT_MEMORY
    return Network(_Torch(network, where, max_memory or default), tile, overlap, max_memory)


def _size(picture: NDArray[Any]) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"


_WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}


def _check(rainy: NDArray[Any]) -> None:
    """Raises DataError where a picture is none that a network takes."""
    if not isinstance(rainy, np.ndarray) or rainy.dtype not in _WHITE:
        kind = getattr(rainy, "dtype", type(rainy).__name__)
        raise DataError(f"a picture must be an array of uint8, uint16, or float32 in [0, 1], not {kind}.")
    if not (rainy.ndim == 2 or (rainy.ndim == 3 and rainy.shape[2] == 3)) or rainy.size == 0:
        raise DataError(f"a picture must have shape (height, width, 3) or (height, width), not {rainy.shape}.")
    if rainy.dtype == np.float32 and not (rainy.min() >= 0 and rainy.max() <= 1):
        raise DataError("a picture of float32 must lie in [0, 1]; divide it by its white value.")
