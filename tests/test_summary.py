"""metrics/summary.json against numbers worked by hand on a small matrix."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from derain import params as parameters
from derain.evaluation.quality import Quality, Scores
from derain.evaluation.summary import (
    after_each_task,
    after_of_csv,
    forgetting_csv,
    machine_of,
    profile,
    read,
    summarize,
)
from derain.params import Params
from derain.types import DataError, NumericError

# PSNR under matlab-y after each task; SSIM is a hundredth of it, and RGB is 1 dB (0.01) lower throughout.
#          first   second  third   strange
LEVELS = {
    "input": [10.0, 20.0, 25.0, 22.0],
    "task0": [30.0, 20.0, 15.0, 23.0],
    "task2": [31.0, 28.0, 17.0, 24.0],
    "task1": [27.0, 24.0, 36.0, 26.5],
}
TESTS = {"first": "learned", "second": "learned", "third": "learned", "strange": "unseen"}
# The stream goes by its links, not by its keys: task0, task2, task1.
STREAM = {"1": {"dataset": "third", "after": "2"}, "2": {"dataset": "second", "after": "0"}}


def params(**changes: Any) -> Params:
    content = {
        "seed": 0,
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        "launch": "python",
        "data": {"photos": "builtin", "test_share": 0.2, "rains_per_photo": 1},
        "datasets": {name: {"source": "rendered", "kind": "heavy"} for name in TESTS},
        "task0": {"dataset": "first"},
        "stream": STREAM,
        "tests": TESTS,
        "train": {
            "lr": 0.001,
            "epochs": 2,
            "steps_per_epoch": 1,
            "batch": 1,
            "micro_batch": None,
            "patch": 16,
        },
        "backbone": "prenet",
        "objective": "negative_ssim",
        "recipe": "adam_multistep",
        "strategy": "nr",
        "sections": {"prenet": {"channels": 4, "stages": 2, "blocks": 1}, "nr": {"alpha_l": 0.008}},
    }
    return Params.model_validate(content | changes)


def scores_of(level: float) -> dict[str, dict[str, Quality]]:
    """Two pictures whose mean is the level."""
    return {
        protocol: {
            name: Quality(level - lower + offset, (level - lower + offset) / 100)
            for name, offset in (("a", -1.5), ("b", 1.5))
        }
        for protocol, lower in (("matlab-y", 0.0), ("rgb", 1.0))
    }


def scores() -> dict[str, Scores]:
    return {test: {row: scores_of(levels[j]) for row, levels in LEVELS.items()} for j, test in enumerate(TESTS)}


MACHINE = "cpu (AVX512), 1 thread, bf16"

FACTS = {
    "task0": {"fraction_consolidated": 0.5, "fraction_free": 0.5},
    "task2": {"fraction_consolidated": 0.625, "fraction_free": 0.375},
    "task1": {"fraction_consolidated": 0.654321987, "fraction_free": 0.345678013},
}


def summed_up() -> dict[str, Any]:
    return summarize(params(), scores(), FACTS, 1000, MACHINE).as_json()


def test_levels_are_those_after_the_last_task_of_the_stream() -> None:
    written = summed_up()
    assert written["psnr"] == {"first": 27, "second": 24, "third": 36, "strange": 26.5}
    assert written["ssim"] == {"first": 0.27, "second": 0.24, "third": 0.36, "strange": 0.265}
    assert written["average"] == {"psnr": 29, "ssim": 0.29}
    assert written["unseen"] == {"psnr": 26.5, "ssim": 0.265}


def test_forgetting_and_transfer_follow_the_stream() -> None:
    written = summed_up()
    assert written["forgetting"] == {"psnr": ((31 - 27) + (28 - 24)) / 2, "ssim": 0.04}
    assert written["backward_transfer"] == {"psnr": ((27 - 30) + (24 - 28)) / 2, "ssim": -0.035}


def test_doing_nothing_and_rgb_have_the_same_numbers() -> None:
    written = summed_up()
    assert written["input"]["psnr"] == {"first": 10, "second": 20, "third": 25, "strange": 22}
    assert written["input"]["average"] == {"psnr": 18.3333, "ssim": 0.1833}
    assert written["rgb"]["psnr"] == {"first": 26, "second": 23, "third": 35, "strange": 25.5}
    assert written["rgb"]["average"] == {"psnr": 28, "ssim": 0.28}
    assert written["input"]["rgb"]["average"] == {"psnr": 17.3333, "ssim": 0.1733}
    assert (written["protocol"], written["rgb"]["protocol"]) == ("matlab-y", "rgb")


def test_masks_are_rounded_to_four_decimals() -> None:
    written = summed_up()
    assert written["consolidated"] == {"task0": 0.5, "task2": 0.625, "task1": 0.6543}
    assert written["free"] == 0.3457


def test_of_one_task_there_is_no_forgetting_and_no_unseen_set_has_no_mean() -> None:
    alone = params(stream={}, tests={"first": "learned", "second": "learned"})
    written = summarize(alone, scores(), FACTS, 1000, MACHINE).as_json()
    assert not {"forgetting", "backward_transfer"} & set(written), "not zero, which would look like the best"
    assert written["average"] == {"psnr": 25, "ssim": 0.25}
    assert "unseen" not in written
    assert written["consolidated"] == {"task0": 0.5}


def test_a_task_whose_set_is_not_tested_has_a_row_and_no_column() -> None:
    written = summarize(
        params(tests={"first": "learned", "third": "learned"}), scores(), FACTS, 1000, MACHINE
    ).as_json()
    assert written["forgetting"]["psnr"] == 31 - 27
    assert written["backward_transfer"]["psnr"] == 27 - 30
    last = summarize(params(tests={"third": "learned"}), scores(), FACTS, 1000, MACHINE).as_json()
    assert "forgetting" not in last, "the last task's own set"


def test_a_set_that_comes_again_is_forgotten_once() -> None:
    again = {"1": {"dataset": "first", "after": "2"}, "2": {"dataset": "second", "after": "0"}}
    written = summarize(params(stream=again), scores(), FACTS, 1000, MACHINE).as_json()
    assert written["forgetting"]["psnr"] == 28 - 24, "of the second set alone: the last task learned the first again"
    assert written["backward_transfer"]["psnr"] == 24 - 28


def test_the_curve_has_a_row_for_each_cell_in_the_order_of_the_stream() -> None:
    after = after_each_task(params(), scores())
    rows = list(csv.DictReader(io.StringIO(forgetting_csv(after).decode())))
    assert [row["after"] for row in rows[::4]] == ["task0: first", "task2: second", "task1: third"]
    assert [row["test"] for row in rows[:4]] == list(TESTS)
    table = {(row["after"], row["test"]): (float(row["psnr"]), float(row["ssim"])) for row in rows}
    assert table["task2: second", "first"] == (31, 0.31)
    assert table["task1: third", "strange"] == (26.5, 0.265)
    assert len(rows) == 12
    assert after_of_csv(forgetting_csv(after).decode()) == after


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_quality_that_is_no_finite_number_is_named(bad: float) -> None:
    broken: Any = scores()
    broken["second"]["task1"]["matlab-y"]["a"] = Quality(bad, 0.5)
    with pytest.raises(NumericError, match=r"second, task1: .*\ba\b"):
        summarize(params(), broken, FACTS, 1000, MACHINE)


def test_a_fraction_that_is_no_number_is_named() -> None:
    spoilt = FACTS | {"task2": {"fraction_consolidated": math.nan, "fraction_free": 0}}
    with pytest.raises(NumericError, match="task2: fraction_consolidated is nan"):
        summarize(params(), scores(), spoilt, 1000, MACHINE)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    written = summarize(params(), scores(), FACTS, 1000, MACHINE)
    path.write_text(json.dumps(written.as_json()))
    assert read(path) == written


@pytest.mark.parametrize("content", [None, "", "[]", '{"psnr": {}}', '{"psnr": NaN}'])
def test_a_missing_or_damaged_summary_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "summary.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"summary\.json .*dvc repro"):
        read(path)


def test_seed_strategy_and_hardware_are_no_part_of_the_profile() -> None:
    same = params(seed=7, strategy="si", device="auto", precision="auto", threads=4)
    assert profile(same) == profile(params())


@pytest.mark.parametrize(
    "changes",
    [
        {"stream": {}},
        {"task0": {"dataset": "second"}},
        {"tests": {"first": "learned"}},
        {"train": params().train.model_dump() | {"epochs": 3, "micro_batch": None}},
        {"data": params().data.model_dump() | {"rains_per_photo": 2}},
        {"datasets": params().model_dump(mode="json")["datasets"] | {"more": {"source": "rendered", "kind": "light"}}},
        {"sections": {"prenet": {"channels": 5, "stages": 2, "blocks": 1}}},
    ],
)
def test_data_network_training_and_tests_are_the_profile(changes: dict[str, Any]) -> None:
    assert profile(params(**changes)) != profile(params())


def test_the_profile_survives_json_and_a_file(tmp_path: Path) -> None:
    original = Path(__file__).parent.parent / "params.yaml"
    copied = tmp_path / "params.yaml"
    copied.write_text(original.read_text().replace("lr: 0.001", "lr: 1e-3"))
    recorded = json.loads(json.dumps(profile(parameters.load(original))))
    assert recorded == profile(parameters.load(copied))


def test_a_machine_in_a_line() -> None:
    facts = {"device": "cpu", "cpu_capability": "AVX512", "threads": 1, "precision": "bf16"}
    assert machine_of(facts) == MACHINE
    assert machine_of(facts | {"device": "NVIDIA H200", "threads": 2}) == "NVIDIA H200, 2 threads, bf16"
