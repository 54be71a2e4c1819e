"""The study of strategies over seeds: the same numbers as the stream learned by itself, recorded run by run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from derain import params
from derain.compute.hardware import Hardware
from derain.data.pack import Pack
from derain.evaluation.evaluate import evaluate
from derain.stream import learn_stream, network_of
from derain.studies import variants
from derain.studies.recorded import read_recorded
from experiments import study, tune
from tests.conftest import by_role

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """The demo with a tiny network on tiny pairs of its own, of two tasks."""
    rng = np.random.default_rng(0)
    content: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    from PIL import Image

    content["datasets"] = {}
    for name in ("first", "second"):
        for kind in ("rainy", "clean"):
            (tmp_path / name / kind).mkdir(parents=True)
            for number in range(2):
                pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name / kind / f"{number}.png")
        folders = {"rainy": str(tmp_path / name / "rainy"), "clean": str(tmp_path / name / "clean")}
        content["datasets"][name] = {"source": "pairs", "train": folders, "test": folders}
    content |= {
        "threads": 1,
        "precision": "fp32",
        "task0": {"dataset": "first"},
        "stream": {"1": {"dataset": "second", "after": "0"}},
        "tests": {"first": "learned", "second": "learned"},
        "prenet": {"channels": 4, "stages": 2, "blocks": 1},
    }
    content["train"] |= {"epochs": 2, "steps_per_epoch": 2, "batch": 2, "patch": 16}
    content["nr"] |= {"samples": 3}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["study", *words])
    study.main()


def test_a_study_is_recorded_run_by_run_and_goes_on_where_it_was_interrupted(
    profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "record.json"
    files = ("--params", str(profile), "--record", str(record))
    run(monkeypatch, "si", "nr", "--seeds", "1", *files)
    first = read_recorded(record).runs
    assert [(made.label, made.seed, made.changes) for made in first] == [("NR", 1, []), ("SI", 1, ["strategy=si"])]

    ran: list[tuple[str, int]] = []
    whole = study.Seed.run

    def interrupted(self: study.Seed, settings: params.Params) -> study.Run:
        if ran:
            raise KeyboardInterrupt
        ran.append((settings.strategy, settings.seed))
        return whole(self, settings)

    monkeypatch.setattr(study.Seed, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, "nr", "si", "mix", "--seeds", "1", "2", *files)
    assert ran == [("si", 1)], "what was recorded is not run again, and Mix is fine-tuning on the union"
    now = read_recorded(record)
    assert [(made.name, made.seed) for made in now.runs] == [("mix", 1), ("nr", 1), ("si", 1)]
    assert now.runs[1:] == first
    assert now.fits(params.load(profile))

    monkeypatch.undo()
    content = yaml.safe_load(profile.read_text())
    content["nr"]["alpha_l"] = 0.004
    profile.write_text(yaml.safe_dump(content))
    run(monkeypatch, "nr", "--seeds", "1", *files)
    assert [made.settings["alpha_l"] for made in read_recorded(record).of(["nr"]).runs] == [0.004]


def test_a_run_gives_the_numbers_of_the_stream_by_itself(profile: Path, tmp_path: Path, hardware: Hardware) -> None:
    settings = params.load(profile)
    runs = study.Seed(hardware, study.PackedSets(tmp_path / "packs"))
    result = runs.run(settings)
    packs = {name: Pack.open(tmp_path / "packs" / name, "train") for name in settings.datasets}
    test = Pack.open(tmp_path / "packs/first", "test")
    learned = learn_stream(settings, by_role(packs), hardware)
    stored = 0
    for (task, left), after in zip(learned, result.after.values(), strict=True):
        column, _ = evaluate(test, {task.name: network_of(settings, left)}, hardware, shown=0)
        mean = np.mean([value.psnr for value in column[task.name]["matlab-y"].values()])
        assert after.psnr["first"] == pytest.approx(mean, abs=1e-4)
        stored = left.stored
    assert result.summary.psnr["first"] == after.psnr["first"]
    assert result.summary.stored_bytes == stored


@pytest.mark.parametrize("name", ["si", "replay", "nr-rank-all-twice", "nr-alpha_l-0.002"])
def test_a_beginning_that_is_shared_changes_no_number(
    profile: Path, tmp_path: Path, hardware: Hardware, name: str
) -> None:
    settings = params.load(profile)
    shared, alone = (study.Seed(hardware, study.PackedSets(tmp_path / folder)) for folder in ("one", "other"))
    asked = variants.catalogue(settings)[name].params
    shared.run(settings)
    assert shared.run(asked) == alone.run(asked)


def test_runs_of_other_first_tasks_share_none(profile: Path, tmp_path: Path, hardware: Hardware) -> None:
    settings = params.load(profile)
    runs = study.Seed(hardware, study.PackedSets(tmp_path / "packs"))
    variant = variants.catalogue(settings)["alone-first"]
    whole, alone = (runs.run(each).after["task0: first"] for each in (settings, variant.params))
    assert whole != alone, "alone it learns for as many steps as the stream has"


def test_strength_is_judged_on_held_out_training_pairs_alone(
    profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(profile.read_text())
    for data in content["datasets"].values():
        data["test"] = {"rainy": "nowhere", "clean": "nowhere"}
    profile.write_text(yaml.safe_dump(content))
    settings = params.load(profile)
    tune.pack_held_out(settings, ["1*"], tmp_path / "packs")
    for data in settings.datasets:
        names = [Pack.open(tmp_path / "packs" / data, split).names for split in ("train", "test")]
        assert names == [("0",), ("1",)]
    words = ["tune", "pigwm.beta", "0", "1e6", "--held-out", "1*", "--params", str(profile)]
    monkeypatch.setattr(sys, "argv", words)
    tune.main()
    weak, strong = (line.split() for line in capsys.readouterr().out.splitlines()[-2:])
    assert (weak[:2], strong[:2]) == (["0", "0"], ["0", "1000000.0"])
    assert weak[2:] != strong[2:]
