"""Continual de-raining by Neural Reorganization.

    import derain

    network = derain.load("models/task3.safetensors")
    derained = network.restore(rainy)

See `derain.compute.network.load` and `Network.restore` for shapes, ranges and errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from derain.restore.network import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # `derain --help` and the stages import this package: what needs NumPy or torch comes when it is asked for.
    if name == "load":
        from derain.restore.network import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
