"""metrics/recorded.json: runs of variants of a params.yaml, kept so that tables and studies can be made of them."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from derain.disk import atomic
from derain.evaluation import summary
from derain.evaluation.quality import PROTOCOLS
from derain.evaluation.summary import ByTest, Summary
from derain.params import Params
from derain.studies import variants
from derain.studies.variants import Variant
from derain.types import DataError

ANOTHER_PROFILE = (
    "The runs in metrics/recorded.json are of other parameters (data, network, training or strategies); left out."
)


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


def run_of(
    params: Params, variant: Variant, seed: int, commit: str, day: str, summary: Summary, after: dict[str, ByTest]
) -> RecordedRun:
    """What is recorded of a run of a variant of `params`."""
    strategy = variant.params.strategy
    return RecordedRun(
        name=variant.name,
        label=variant.label,
        strategy=strategy,
        settings=variant.params.sections.get(strategy, {}),
        changes=list(variants.overrides(params.content, variant.params.content)),
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
        return self._with(run for name in dict.fromkeys(names) for run in self.runs if run.name == name)

    def of_today(self, params: Params) -> Recorded:
        """The runs of params.yaml as it is: of its profile, and with its values of their strategies."""
        today = variants.catalogue(params) if self.fits(params) else {}
        sections = {name: variant.params.sections for name, variant in today.items()}
        return self._with(
            run for run in self.runs if run.name in today and run.settings == sections[run.name].get(run.strategy, {})
        )

    def beside(self, params: Params) -> Recorded | None:
        """The strategies among the runs `of_today`, with the seeds they share; None where there are none."""
        strategies = self.of_today(params).of(variants.STRATEGIES).with_shared_seeds()
        return strategies if strategies.runs else None

    def has(self, name: str, seed: int) -> bool:
        """Whether a variant's run with a seed is there."""
        return any((run.name, run.seed) == (name, seed) for run in self.runs)

    def with_shared_seeds(self) -> Recorded:
        """The runs with the seeds that all labels have, so that means are over the same.

        All where none is shared: `note` then says which label has which.
        """
        shared = set.intersection(*map(set, self.seeds.values())) if self.runs else set()
        return self._with(run for run in self.runs if run.seed in shared or not shared)

    def joined(self, params: Params, runs: Iterable[RecordedRun]) -> Recorded:
        """The runs, where they are of the profile of `params`, and further ones in place of those of the same name
        and seed."""
        kept = {(run.name, run.seed): run for run in self.runs if self.fits(params)}
        kept |= {(run.name, run.seed): run for run in runs}
        return Recorded(
            protocol=f"{summary.MAIN}: {PROTOCOLS[summary.MAIN].description}",
            profile=summary.profile(params),
            runs=[kept[key] for key in sorted(kept)],
        )

    def _with(self, runs: Iterable[RecordedRun]) -> Recorded:
        return self.model_copy(update={"runs": list(runs)})

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
        said = next(iter(seeds.values())) if alike else "; ".join(f"{label} {its}" for label, its in seeds.items())
        spread = ", mean ± standard deviation" if any(len(its) > 1 for its in self.seeds.values()) else ""
        return f"recorded on {machines}{differing}, {dates}, {said}{spread}"


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
        recorded = there.joined(params, runs)
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


def _a_line_a_run(recorded: Recorded) -> str:
    """JSON in which a new run is a new line."""

    def text(content: Any, indent: int | None = None) -> str:
        return json.dumps(content, ensure_ascii=False, allow_nan=False, indent=indent)

    content = recorded.model_dump(mode="json", exclude_none=True)
    runs = ",\n".join(text(run) for run in content.pop("runs"))
    return f'{text(content, 1)[:-2]},\n "runs": [\n{runs}\n]\n}}\n'
