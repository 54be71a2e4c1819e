"""The rows of the table of results: doing nothing, this run, and the recorded strategies as mean and spread."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from derain.params import Params
from derain.report import summary
from derain.report.summary import Levels, Summary
from derain.types import DataError


class RecordedRun(BaseModel):
    """A run of metrics/recorded.json: its label in the table, where and when it was made, its metrics/summary.json."""

    model_config = ConfigDict(frozen=True)

    label: str
    strategy: str
    seed: int
    machine: str
    date: str
    summary: Summary


class Recorded(BaseModel):
    """metrics/recorded.json: runs of all strategies, and of which `profile` they are."""

    model_config = ConfigDict(frozen=True)

    protocol: str = ""
    profile: dict[str, Any] = {}
    runs: list[RecordedRun] = []

    def fits(self, params: Params) -> bool:
        """Whether the runs are of the same profile as params.yaml, so that they may stand beside its run."""
        return self.profile == summary.profile(params)

    @property
    def by_label(self) -> dict[str, list[RecordedRun]]:
        """The runs by label, in the order of the file."""
        labels: dict[str, list[RecordedRun]] = {}
        for run in self.runs:
            labels.setdefault(run.label, []).append(run)
        return labels

    @property
    def note(self) -> str:
        """What the recorded rows are, in one line: machines, dates, number of seeds."""
        machines = " and ".join(dict.fromkeys(run.machine for run in self.runs))
        dates = " to ".join(sorted({min(run.date for run in self.runs), max(run.date for run in self.runs)}))
        seeds = {len({run.seed for run in runs}) for runs in self.by_label.values()}
        few, many = min(seeds), max(seeds)
        count = f"{few} seed{'s' * (few != 1)}" if few == many else f"{few} to {many} seeds"
        spread = ", mean ± standard deviation" if many > 1 else ""
        return f"recorded on {machines}, {dates}, {count} each{spread}"


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


ANOTHER_PROFILE = (
    "The runs in metrics/recorded.json are of another profile (other data, network or training); left out."
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


def rows(run: Summary, recorded: Recorded | None) -> list[Row]:
    """The table: doing nothing, this run, and a row a label of the recorded runs."""
    labels = recorded.by_label if recorded else {}
    return [
        _row("do nothing", "nothing", [run.input]),
        _row(f"this run ({run.strategy})", "this", [run]),
        *(_row(label, "recorded", [one.summary for one in runs]) for label, runs in labels.items()),
    ]


def rgb_rows(run: Summary, recorded: Recorded | None) -> list[Row]:
    """The same table under the second protocol, without forgetting."""
    labels = recorded.by_label if recorded else {}
    return [
        _row("do nothing", "nothing", [run.input.rgb]),
        _row(f"this run ({run.strategy})", "this", [run.rgb]),
        *(_row(label, "recorded", [one.summary.rgb for one in runs]) for label, runs in labels.items()),
    ]


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation."""
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None)


def _row(label: str, kind: Literal["nothing", "this", "recorded"], runs: Sequence[Levels]) -> Row:
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
