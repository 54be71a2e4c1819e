"""SI: "sequential and independent", the paper's baseline (Sec. 4.3): fine-tuning on one set after another.

Not Synaptic Intelligence, which shares the abbreviation.
"""

from derain.training.strategy import Params, Strategy

__all__ = ["Params", "Strategy"]
