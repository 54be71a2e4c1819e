"""Recorded runs, and the rows of tables: doing nothing, this run, and the recorded strategies as mean and spread."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from derain.disk import atomic
from derain.evaluation import summary
from derain.evaluation.quality import PROTOCOLS
from derain.evaluation.summary import ByTest, Levels, Summary
from derain.params import Params
from derain.studies import variants
from derain.studies.variants import Content, Variant
from derain.types import DataError
from derain.web.wording import NOTHING, number


class RecordedRun(BaseModel):
    """A run of metrics/recorded.json.

    Its variant's name and label, what that changed in params.yaml, as after `-S`, and the strategy's own section; the
    commit of the code and the day; its metrics/summary.json; and its quality after each task, "task0: heavy", in the
    order of its stream.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    label: str
    strategy: str
    settings: dict[str, Any]
    changes: list[str]
    seed: int
    commit: str
    date: str
    summary: Summary
    after: dict[str, ByTest]

    @property
    def order(self) -> list[str]:
        """The data sets of its tasks, in the order of its stream."""
        return [after.partition(": ")[2] for after in self.after]


FIGURES: Mapping[str, Callable[[RecordedRun], float]] = {
    "average": lambda run: _psnr(run.summary.average),
    "forgetting": lambda run: _psnr(run.summary.forgetting),
    "unseen": lambda run: _psnr(run.summary.unseen),
}
"""A run in single numbers (dB); not a number where it is undefined, as forgetting is for a single task."""


def _psnr(figure: summary.Both | None) -> float:
    return figure.psnr if figure else math.nan


def run_of(
    base: Content, variant: Variant, seed: int, commit: str, day: str, summary: Summary, after: dict[str, ByTest]
) -> RecordedRun:
    """What is recorded of a variant's run; `base` is the params.yaml that it is a variant of."""
    strategy = variant.content["strategy"]
    return RecordedRun(
        name=variant.name,
        label=variant.label,
        strategy=strategy,
        settings=variant.content.get(strategy) or {},
        changes=list(variants.overrides(base, variant.content)),
        seed=seed,
        commit=commit,
        date=day,
        summary=summary,
        after=after,
    )


class Recorded(BaseModel):
    """metrics/recorded.json: runs of variants of a params.yaml, and of which `profile` they are."""

    model_config = ConfigDict(frozen=True)

    protocol: str = ""
    profile: dict[str, Any] = {}
    runs: list[RecordedRun] = []

    def fits(self, params: Params) -> bool:
        """Whether the runs are of the same profile as params.yaml, so that they may stand beside its run."""
        return self.profile == summary.profile(params)

    def of(self, names: Iterable[str]) -> Recorded:
        """The runs of some variants alone, in the order of the names, then of seeds."""
        chosen = [run for name in dict.fromkeys(names) for run in self.runs if run.name == name]
        return self.model_copy(update={"runs": chosen})

    def has(self, name: str, seed: int) -> bool:
        """Whether a variant's run with a seed is there."""
        return any((run.name, run.seed) == (name, seed) for run in self.runs)

    def with_shared_seeds(self) -> Recorded:
        """The runs with the seeds that all labels have, so that means are over the same.

        All where none is shared: `note` then says which label has which.
        """
        shared = set.intersection(*map(set, self.seeds.values())) if self.runs else set()
        return self.model_copy(update={"runs": [run for run in self.runs if run.seed in shared or not shared]})

    @property
    def by_label(self) -> dict[str, list[RecordedRun]]:
        """The runs by label, in the order of the file."""
        labels: dict[str, list[RecordedRun]] = {}
        for run in self.runs:
            labels.setdefault(run.label, []).append(run)
        return labels

    @property
    def seeds(self) -> dict[str, list[int]]:
        """The seeds by label."""
        return {label: sorted({run.seed for run in runs}) for label, runs in self.by_label.items()}

    @property
    def note(self) -> str:
        """What the recorded rows are, in one line: machines, rows that are of several, dates, seeds."""
        machines = " and ".join(dict.fromkeys(run.summary.machine for run in self.runs))
        several = [label for label, runs in self.by_label.items() if len({run.summary.machine for run in runs}) > 1]
        differing = f" (the spread holds their difference: {', '.join(several)})" if several else ""
        dates = " to ".join(sorted({min(run.date for run in self.runs), max(run.date for run in self.runs)}))
        seeds = {label: f"seed{'s' * (len(its) > 1)} {', '.join(map(str, its))}" for label, its in self.seeds.items()}
        alike = len(set(seeds.values())) == 1
        ran = next(iter(seeds.values())) if alike else "; ".join(f"{label} {its}" for label, its in seeds.items())
        spread = ", mean ± standard deviation" if any(len(its) > 1 for its in self.seeds.values()) else ""
        return f"recorded on {machines}{differing}, {dates}, {ran}{spread}"


class Spread(NamedTuple):
    """A mean over seeds and its (sample) standard deviation; None for one seed."""

    mean: float
    deviation: float | None = None


@dataclass(frozen=True)
class Row:
    """A row of the table; what a row has not got is None or missing. PSNR in dB."""

    label: str
    kind: Literal["nothing", "this", "recorded"]
    psnr: Mapping[str, Spread]
    ssim: Mapping[str, Spread]
    average: tuple[Spread, Spread] | None
    unseen: tuple[Spread, Spread] | None
    forgetting: tuple[Spread, Spread] | None = None


def of_today(params: Params, base: Content, recorded: Recorded) -> Recorded:
    """The recorded runs of params.yaml as it is (`base`): of its profile, and with its values of their strategies."""
    asked = variants.catalogue(base)

    def is_asked(run: RecordedRun) -> bool:
        return run.name in asked and run.settings == (asked[run.name].content.get(run.strategy) or {})

    runs = filter(is_asked, recorded.runs) if recorded.fits(params) else []
    return recorded.model_copy(update={"runs": list(runs)})


def beside(params: Params, base: Content, recorded: Recorded) -> Recorded | None:
    """The strategies among the runs `of_today`, with the seeds they share; None where there are none."""
    strategies = of_today(params, base, recorded).of(variants.STRATEGIES).with_shared_seeds()
    return strategies if strategies.runs else None


ANOTHER_PROFILE = (
    "The runs in metrics/recorded.json are of other parameters (data, network, training or strategies); left out."
)


def read_recorded(path: Path) -> Recorded:
    """Reads metrics/recorded.json, which may hold no runs.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return Recorded.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f'{path} is missing. Restore it from git, or write {{"runs": []}} into it.') from None
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise DataError(
            f"{path} is damaged or of another version (at {place or 'its top'}). Record it again."
        ) from None
    except ValueError:
        raise DataError(f"{path} is no JSON. Restore it from git.") from None


def begun(path: Path) -> Recorded:
    """`read_recorded`, without runs where there is no file yet."""
    return read_recorded(path) if path.exists() else Recorded()


def record(path: Path, params: Params, runs: Iterable[RecordedRun]) -> Recorded:
    """Adds runs to metrics/recorded.json as `joined` does; several processes may at once.

    Raises:
        DataError: the file is damaged, holds runs of another profile, or cannot be written; it stays as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(path.parent):
        there = begun(path)
        if there.runs and not there.fits(params):
            raise DataError(f"{path} holds runs of another profile, which fit no table with these. Move it away first.")
        recorded = joined(there, params, runs)
        atomic.write_atomically(path, _a_line_a_run(recorded).encode())
    return recorded


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Within it, no other process is in the same folder by this function."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def joined(recorded: Recorded, params: Params, runs: Iterable[RecordedRun]) -> Recorded:
    """Recorded runs, where they are of the profile of `params`, and further ones in place of those of the same name
    and seed."""
    kept = {(run.name, run.seed): run for run in recorded.runs if recorded.fits(params)}
    kept |= {(run.name, run.seed): run for run in runs}
    return Recorded(
        protocol=f"{summary.MAIN}: {PROTOCOLS[summary.MAIN].description}",
        profile=summary.profile(params),
        runs=[kept[key] for key in sorted(kept)],
    )


def _a_line_a_run(recorded: Recorded) -> str:
    """JSON in which a new run is a new line."""

    def text(content: Any, indent: int | None = None) -> str:
        return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent)

    content = recorded.model_dump(mode="json", exclude_none=True)
    runs = ",\n".join(text(run) for run in content.pop("runs"))
    return f'{text(content, 1)[:-2]},\n "runs": [\n{runs}\n]\n}}\n'


def rows(run: Summary, recorded: Recorded | None) -> list[Row]:
    """The table: doing nothing, this run, and a row a label of the recorded runs."""
    labels = recorded.by_label if recorded else {}
    return [
        row("do nothing", "nothing", [run.input]),
        row(f"this run ({run.strategy})", "this", [run]),
        *(row(label, "recorded", [one.summary for one in runs]) for label, runs in labels.items()),
    ]


def rgb_rows(run: Summary, recorded: Recorded | None) -> list[Row]:
    """The same table under the second protocol, without forgetting."""
    labels = recorded.by_label if recorded else {}
    return [
        row("do nothing", "nothing", [run.input.rgb]),
        row(f"this run ({run.strategy})", "this", [run.rgb]),
        *(row(label, "recorded", [one.summary.rgb for one in runs]) for label, runs in labels.items()),
    ]


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation."""
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None)


def row(label: str, kind: Literal["nothing", "this", "recorded"], runs: Sequence[Levels]) -> Row:
    """Runs with several seeds as one row; it has the test sets that all of them have."""
    tests = [test for test in runs[0].psnr if all(test in run.psnr and test in run.ssim for run in runs)]
    return Row(
        label,
        kind,
        psnr={test: spread([run.psnr[test] for run in runs]) for test in tests},
        ssim={test: spread([run.ssim[test] for run in runs]) for test in tests},
        average=_both([run.average for run in runs]),
        unseen=_both([run.unseen for run in runs]),
        forgetting=_both([run.forgetting if isinstance(run, Summary) else None for run in runs]),
    )


def _both(figures: Sequence[summary.Both | None]) -> tuple[Spread, Spread] | None:
    present = [figure for figure in figures if figure is not None]
    if len(present) < len(figures):
        return None
    return spread([figure.psnr for figure in present]), spread([figure.ssim for figure in present])


def level(value: Spread | None, digits: int) -> str:
    """A mean, with its standard deviation where there is one."""
    if value is None:
        return NOTHING
    deviation = "" if value.deviation is None else f" ± {value.deviation:.{digits}f}"
    return number(value.mean, digits) + deviation
