"""download@<data set>: packs a data set's splits into a few large files under data/<data set>."""

import sys

from derain import params
from derain.console import run
from derain.data.sets import pack_set
from derain.disk import paths


def main() -> None:
    name = sys.argv[1]
    settings = params.load()
    pack_set(name, settings.datasets[name], paths.DATA / name, settings.data, settings.seed)


if __name__ == "__main__":
    run(main)
