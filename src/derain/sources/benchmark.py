"""A published set: see `derain.data.benchmark` for which there are and how their files lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from derain.data import benchmark, source
from derain.data.benchmark import BENCHMARKS
from derain.data.source import Split
from derain.disk import paths
from derain.params import Section
from derain.types import ParamsError, Role


class Params(Section):
    """The set's name, and exactly one place: `url`, `gdrive` (a file's id), `archive` or `folder`."""

    set: str
    url: str | None = None
    gdrive: str | None = None
    archive: str | None = None
    folder: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Params:
        if sum(place is not None for place in (self.url, self.gdrive, self.archive, self.folder)) != 1:
            raise ValueError("name exactly one of url, gdrive, archive, folder")
        return self


class Source(source.Source):
    """The pairs of the set, fetched and unpacked where they have to be."""

    params: Params

    def check(self, key: str) -> None:
        if self.params.set not in BENCHMARKS:
            known = ", ".join(BENCHMARKS)
            raise ParamsError(f"{key}.set: {self.params.set!r} is no benchmark. Allowed: {known}.")

    @property
    def roles(self) -> Sequence[Role]:
        published = benchmark.find_benchmark(self.params.set)
        return ("test",) if published.train is None else ("train", "test")

    def split(self, role: Role) -> Split:
        published = benchmark.find_benchmark(self.params.set)
        folder = benchmark.obtain(
            self.params.set,
            url=self.params.url,
            gdrive=self.params.gdrive,
            archive=Path(self.params.archive) if self.params.archive else None,
            folder=Path(self.params.folder) if self.params.folder else None,
            sha256=self.params.sha256,
            cache=paths.cache(),
        )
        pairs = benchmark.benchmark_pairs(self.params.set, folder, role)
        return Split(pairs, published.stride, published.flip and role == "train")
