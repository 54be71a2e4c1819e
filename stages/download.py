"""download@<data set>: packs a data set's splits into a few large files under data/<data set>."""

import sys

from derain import params as parameters
from derain.console import run
from derain.data.sets import pack_set
from derain.disk import paths


def main() -> None:
    name = sys.argv[1]
    params = parameters.load()
    pack_set(name, params.datasets[name], paths.DATA / name, params.data, params.seed)


if __name__ == "__main__":
    run(main)
