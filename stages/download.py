"""download@<data set>: packs a data set's splits into a few large files under data/<data set>."""

import sys

from derain import params, paths
from derain.console import run, say
from derain.data.pack import write_pack
from derain.data.sources import SPLITS, split_of
from derain.types import DataError


def main() -> None:
    name = sys.argv[1]
    settings = params.load()
    definition = settings.datasets[name]
    splits = {split: split_of(definition, split, settings.data, settings.seed) for split in SPLITS}
    present = {split: content for split, content in splits.items() if content is not None}
    if not present:
        raise DataError(f"datasets.{name} names neither a train nor a test split.")
    for split, content in present.items():
        say(f"{name}: packing the {split} split")
        write_pack(
            paths.DATA / name,
            split,
            content.pairs,
            stride=content.stride,
            flip=content.flip,
            description=definition.model_dump(exclude_none=True),
        )


if __name__ == "__main__":
    run(main)
