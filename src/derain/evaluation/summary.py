"""metrics/summary.json and plots/forgetting.csv: what a run of the pipeline came to, in numbers."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from derain.evaluation import continual, quality
from derain.evaluation.quality import INPUT, Quality, Scores
from derain.params import Params
from derain.types import DataError, NumericError

MAIN = "matlab-y"
"""The protocol of the numbers that have no other one named beside them."""
SECOND = "rgb"

DECIMALS = 4
"""The metrics are rounded to 1e-4 dB and 1e-4 of SSIM, so that a difference in git shows what changed."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Both(_Frozen):
    """One figure in PSNR (dB) and in SSIM."""

    psnr: Finite
    ssim: Finite


class ByTest(_Frozen):
    """The quality by test set: PSNR in dB and SSIM."""

    psnr: dict[str, Finite]
    ssim: dict[str, Finite]

    def on(self, test: str) -> Both | None:
        """The quality on one test set; None where it is not tested."""
        return Both(psnr=self.psnr[test], ssim=self.ssim[test]) if test in self.psnr.keys() & self.ssim.keys() else None


class Levels(ByTest):
    """The quality by test set, and its means over the `learned` sets and over the `unseen` ones, None without any."""

    average: Both | None = None
    unseen: Both | None = None


class SecondLevels(Levels):
    """`Levels` under another protocol, which it names."""

    protocol: str


class DoingNothing(Levels):
    """`Levels` of the rainy pictures themselves."""

    rgb: Levels


class Summary(Levels):
    """metrics/summary.json: the levels after the last task, what the stream did to them, and the masks.

    `forgetting` and `backward_transfer` are those of `derain.evaluation.continual` over the learned sets that are
    tested, None where there is no earlier one than the last task's; `consolidated` is the fraction of all weights by
    task, `free` what is left. `stored_bytes` is what the strategy keeps after the last task beside the network
    (docs/strategies.md); `machine` is what the run was made on.
    """

    strategy: str
    protocol: str
    machine: str
    forgetting: Both | None = None
    backward_transfer: Both | None = None
    consolidated: dict[str, Finite]
    free: Finite
    stored_bytes: int
    rgb: SecondLevels
    input: DoingNothing

    def as_json(self) -> dict[str, Any]:
        """The content of metrics/summary.json."""
        first = ("strategy", "protocol", "machine")
        content = self.model_dump(exclude_none=True)
        return {key: content.pop(key) for key in first} | content


def summarize(
    params: Params,
    scores_by_test: Mapping[str, Scores],
    masks_facts: Mapping[str, Mapping[str, Any]],
    stored_bytes: int,
    machine: str,
) -> Summary:
    """The summary of a run.

    Args:
        params: the run's parameters; only the tests and tasks they list are looked at.
        scores_by_test: the scores on each test set.
        masks_facts: the metadata of the mask after each task, by the task's name.
        stored_bytes: what the strategy keeps after the last task beside the network.
        machine: what the run was made on; see `machine_of`.

    Raises:
        NumericError: a number is not finite; the message names it.
    """
    last = params.tasks[-1].name

    def levels(row: str, protocol: str) -> dict[str, Any]:
        return _levels(params, {test: _mean(scores_by_test, test, row, protocol) for test in params.tests})

    return Summary(
        strategy=params.strategy,
        protocol=MAIN,
        machine=machine,
        **levels(last, MAIN),
        forgetting=_of_matrix(continual.forgetting, params, scores_by_test),
        backward_transfer=_of_matrix(continual.backward_transfer, params, scores_by_test),
        consolidated={
            task.name: rounded(masks_facts[task.name]["fraction_consolidated"], f"{task.name}: fraction_consolidated")
            for task in params.tasks
        },
        free=rounded(masks_facts[last]["fraction_free"], f"{last}: fraction_free"),
        stored_bytes=stored_bytes,
        rgb=SecondLevels(protocol=SECOND, **levels(last, SECOND)),
        input=DoingNothing(**levels(INPUT, MAIN), rgb=Levels(**levels(INPUT, SECOND))),
    )


def machine_of(facts: Mapping[str, Any]) -> str:
    """A line on what a run was made on, from `Hardware.describe` or an artifact's metadata."""
    kind = f" ({facts['cpu_capability']})" if facts["device"] == "cpu" else ""
    threads = f"{facts['threads']} thread{'s' * (facts['threads'] != 1)}"
    return f"{facts['device']}{kind}, {threads}, {facts['precision']}"


def matrix(params: Params, scores_by_test: Mapping[str, Scores]) -> dict[str, dict[str, Quality]]:
    """The quality after task i on test set j under `MAIN`, in all its digits: by task's name, by test set."""
    return {
        task.name: {test: _mean(scores_by_test, test, task.name, MAIN) for test in params.tests}
        for task in params.tasks
    }


def after_each_task(params: Params, scores_by_test: Mapping[str, Scores]) -> dict[str, ByTest]:
    """The same as it is recorded, by "task0: heavy", in the order of the stream."""
    levels = matrix(params, scores_by_test)
    return {f"{task.name}: {task.dataset}": ByTest(**_rounded(levels[task.name])) for task in params.tasks}


def forgetting_csv(after: Mapping[str, ByTest]) -> bytes:
    """plots/forgetting.csv: a row for each task and test set of `after_each_task`."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["after", "test", "psnr", "ssim"])
    table.writerows(
        [task, test, psnr, level.ssim[test]] for task, level in after.items() for test, psnr in level.psnr.items()
    )
    return text.getvalue().encode()


def after_of_csv(text: str) -> dict[str, ByTest]:
    """What `forgetting_csv` was given, read from its text.

    Raises:
        DataError: it is no such table.
    """
    levels: dict[str, ByTest] = {}
    try:
        for row in csv.DictReader(io.StringIO(text)):
            after = levels.setdefault(row["after"], ByTest(psnr={}, ssim={}))
            after.psnr[row["test"]], after.ssim[row["test"]] = float(row["psnr"]), float(row["ssim"])
    except (KeyError, TypeError, ValueError, csv.Error):
        raise DataError("a plots/forgetting.csv is damaged or of another version. Run `dvc repro`.") from None
    return levels


SHARED_KINDS = ("backbone", "objective", "recipe")
"""The keys of params.yaml that select a file, and its section with it, for all runs of a table alike."""


def profile(params: Params) -> dict[str, Any]:
    """What two runs must share for their numbers to stand in one table: all but seed, strategy and hardware."""
    keys = {"train", "start", "data", "datasets", "task0", "stream", "tests", *SHARED_KINDS}
    names = [getattr(params, kind) for kind in SHARED_KINDS]
    return params.model_dump(mode="json", include=keys) | {name: params.sections.get(name, {}) for name in names}


def read(path: Path) -> Summary:
    """Reads a metrics/summary.json.

    Raises:
        DataError: the file is missing or no summary.
    """
    try:
        return of_json(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise DataError(f"{path} is missing. Run `dvc repro`.") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is damaged or of another version. Run `dvc repro`.") from None


def of_json(text: str, name: str) -> Summary:
    """The summary in a metrics/summary.json's text; DataError, naming it, where it is none."""
    try:
        return Summary.model_validate(json.loads(text))
    except (ValueError, ValidationError):
        raise DataError(f"{name} is damaged or of another version. Run `dvc repro`.") from None


def rounded(value: float, what: str) -> float:
    """A number for a metrics file; NumericError, naming it, where it is not finite."""
    if not math.isfinite(value):
        raise NumericError(
            f"{what} is {value}; nothing was written. Run `dvc repro --force` from the stage that made it."
        )
    return round(value, DECIMALS) + 0.0  # -0.0 becomes 0.0


def _mean(scores_by_test: Mapping[str, Scores], test: str, row: str, protocol: str) -> Quality:
    pictures = scores_by_test[test][row][protocol]
    for picture, value in pictures.items():
        if any(math.isnan(part) for part in value):
            raise NumericError(f"{test}, {row}: the quality of {picture} is not a number. Nothing was written.")
    try:
        return quality.finite_mean(pictures)
    except NumericError as error:
        raise NumericError(f"{test}, {row}: {error}") from None


def _levels(params: Params, by_test: Mapping[str, Quality]) -> dict[str, Any]:
    def mean_over(role: str) -> Both | None:
        values = [by_test[test] for test, its_role in params.tests.items() if its_role == role]
        if not values:
            return None
        psnr, ssim = (fmean(value) for value in zip(*values, strict=True))
        return Both(psnr=rounded(psnr, role), ssim=rounded(ssim, role))

    return {**_rounded(by_test), "average": mean_over("learned"), "unseen": mean_over("unseen")}


def _rounded(by_test: Mapping[str, Quality]) -> dict[str, dict[str, float]]:
    return {
        "psnr": {test: rounded(value.psnr, test) for test, value in by_test.items()},
        "ssim": {test: rounded(value.ssim, test) for test, value in by_test.items()},
    }


def _of_matrix(
    figure: Callable[[continual.Matrix, Sequence[int]], float], params: Params, scores_by_test: Mapping[str, Scores]
) -> Both | None:
    learned = {task.dataset: row for row, task in enumerate(params.tasks) if task.dataset in params.tests}
    if set(learned.values()) <= {len(params.tasks) - 1}:
        return None
    rows = [[level[dataset] for dataset in learned] for level in matrix(params, scores_by_test).values()]
    psnr = figure([[value.psnr for value in row] for row in rows], list(learned.values()))
    ssim = figure([[value.ssim for value in row] for row in rows], list(learned.values()))
    return Both(psnr=rounded(psnr, figure.__name__), ssim=rounded(ssim, figure.__name__))
