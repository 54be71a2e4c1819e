"""A folder with small data, weights and masks, in which stages run within this process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml

from derain import console, params, plugins
from derain.data.pack import write_pack
from derain.disk import artifacts, networks, paths
from derain.training import masks
from derain.training.trace import Trace
from derain.types import Pair
from stages._task import write_start


class Folder:
    """The current folder, made for stages; `write_params` gives it its parameters."""

    def __init__(self, demo: str) -> None:
        self._demo = demo

    def write_params(self, values: Mapping[str, Any]) -> None:
        """Writes the demo's params.yaml on the CPU, with other values by key ("train.lr")."""
        content = yaml.safe_load(self._demo) | {"device": "cpu"}
        for key, value in values.items():
            *sections, leaf = key.split(".")
            section = content
            for name in sections:
                section = section[name]
            section[leaf] = value
        params.PARAMS_FILE.write_text(yaml.safe_dump(content))

    def write_artifacts(self) -> None:
        """Writes what is left of the tasks 0 and 1, a function of the backbone's parameters."""
        settings = params.load()
        write_start(settings)
        section = settings.section("backbones")
        torch.manual_seed(0)
        network = networks.build_network(settings.backbone, section)
        for task in ("task0", "task1"):
            networks.save_network(
                paths.model(task), network.state_dict(), settings.backbone, section, {"kind": "model"}
            )
            artifacts.save(paths.mask(task), masks.nothing_consolidated(network), {"kind": "mask"})
            artifacts.save(paths.memory(task), {}, {"kind": "memory"})
            artifacts.save(paths.trace(task), Trace(network).tensors(network), {"kind": "trace"})


@contextmanager
def small_folder() -> Iterator[Folder]:
    """A temporary folder to work in, with the packs of the sets heavy and light and a cache of its own."""
    demo, before, threads = params.PARAMS_FILE.read_text(), Path.cwd(), torch.get_num_threads()
    for strategy in plugins.names("strategies"):  # the code that is loaded is part of a state's fingerprint
        plugins.load("strategies", strategy)
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, DERAIN_CACHE=f"{folder}/cache"):
        os.chdir(folder)
        console.out.quiet = console.err.quiet = True
        try:
            for number, name in enumerate(("heavy", "light")):
                for split in ("train", "test"):
                    write_pack(paths.DATA / name, split, pairs(number))
            yield Folder(demo)
        finally:
            console.out.quiet = console.err.quiet = False
            os.chdir(before)
            torch.set_num_threads(threads)


def pairs(seed: int) -> Iterator[Pair]:
    """Two pairs of noise."""
    rng = np.random.default_rng(seed)
    for number in range(2):
        rainy, clean = rng.integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
        yield Pair(f"picture{number}", rainy, clean)
