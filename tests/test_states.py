"""An interrupted stage goes on from its state bit for bit, and no state is met by what it does not belong to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from derain import plugins
from derain.compute.batch import Batch
from derain.compute.hardware import Hardware
from derain.data.pack import Pack
from derain.disk import atomic
from derain.params import Params
from derain.stream import Carried, consolidate_task, learn_task
from derain.training import crops, learn, masks, resume
from derain.training.importance import mean_absolute_gradient
from derain.training.resume import KeptState, State
from derain.training.strategy import Strategy
from derain.types import BusyError, NumericError, Restored
from tests.conftest import NEGATIVE_SSIM, learner_of


class KilledError(Exception):
    """Stands for the end of a process right after it has kept its state."""


class Dying(KeptState):
    """Keeps its state after every step, and ends after some of them."""

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__(folder)
        self.left = steps

    def step_done(self, content: Callable[[], bytes]) -> None:
        self._pause = 0
        super().step_done(content)
        self.left -= 1
        if not self.left:
            raise KilledError


@pytest.fixture(autouse=True)
def folder_of_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path))
    return tmp_path / "states"


@pytest.fixture
def three_epochs(tiny_params: Params) -> Params:
    train = tiny_params.train.model_copy(update={"epochs": 3})
    sections = tiny_params.sections | {"adam_multistep": {"milestones": [1 / 3, 2 / 3], "gamma": 0.2}}
    return tiny_params.model_copy(update={"train": train, "sections": sections})


def assert_same(one: Carried, other: Carried) -> None:
    assert one.history == other.history
    for part in ("weights", "trace", "objective", "own"):
        ours, theirs = getattr(one, part), getattr(other, part)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), part


@pytest.mark.parametrize("strategy", plugins.names("strategies"))
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_training_that_ends_after_any_step_goes_on_bit_for_bit(
    strategy: str,
    steps: int,
    three_epochs: Params,
    packs: dict[str, Pack],
    hardware: Hardware,
    tmp_path: Path,
) -> None:
    """Two deaths on the way: within an epoch, at its end, at a milestone of the schedule."""
    params = three_epochs.model_copy(update={"strategy": strategy})
    task = params.tasks[1]
    heavy, medium = {"train": packs["heavy"]}, {"train": packs["medium"]}
    first = learn_task(params, params.tasks[0], heavy, hardware, None)
    before = consolidate_task(params, params.tasks[0], heavy, hardware, first)
    undisturbed = learn_task(params, task, medium, hardware, before)
    for part in (steps, 1):
        with pytest.raises(KilledError):
            learn_task(params, task, medium, hardware, before, Dying(tmp_path, part))
    taken = []

    class Counting(KeptState):
        def step_done(self, content: Callable[[], bytes]) -> None:
            taken.append(1)

    continued = learn_task(params, task, medium, hardware, before, Counting(tmp_path))
    assert_same(undisturbed, continued)
    assert len(taken) == 6 - steps - 1, "no step is taken twice"


def test_random_numbers_of_a_backbone_go_on_too(
    tiny_params: Params, packs: dict[str, Pack], hardware: Hardware, tmp_path: Path
) -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, rainy: torch.Tensor) -> Restored:
            return Restored(nn.functional.dropout(self.layer(rainy), 0.5, self.training))

    def learned(state: State) -> Carried:
        torch.manual_seed(0)
        network = Dropping()
        strategy = Strategy(None, masks.nothing_consolidated(network), hardware, {}, NEGATIVE_SSIM)
        task, pack = tiny_params.tasks[0], {"train": packs["heavy"]}
        learner = learner_of(network, strategy, hardware)
        history, trace = learn.learn(learner, task, pack, tiny_params.train, 0, state)
        return Carried(network.state_dict(), {}, trace=trace, history=history)

    undisturbed = learned(State())
    with pytest.raises(KilledError):
        learned(Dying(tmp_path, 1))
    assert_same(undisturbed, learned(KeptState(tmp_path)))


@pytest.mark.parametrize("steps", [1, 4])
def test_a_measure_of_importance_goes_on_bit_for_bit(
    steps: int, tiny_params: Params, packs: dict[str, Pack], hardware: Hardware, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = plugins.load("backbones", "prenet").build(tiny_params.section("backbones"))
    samples = crops.for_importance(packs["heavy"], 16, 0, 0, count=5, batch=1, device=hardware.device)
    undisturbed = mean_absolute_gradient(network, samples, hardware, NEGATIVE_SSIM)
    with pytest.raises(KilledError):
        mean_absolute_gradient(network, samples, hardware, NEGATIVE_SSIM, Dying(tmp_path, steps))
    continued = mean_absolute_gradient(network, samples, hardware, NEGATIVE_SSIM, KeptState(tmp_path))
    assert all(torch.equal(value, continued[name]) for name, value in undisturbed.items())


def test_a_state_is_kept_until_the_next_computation_keeps_one(folder_of_states: Path) -> None:
    """It has served then, and DVC has recorded what it served for."""
    _left({"seed": 0}, b"half")
    for _ in range(2):  # the second time as after a DVC that was killed before it had recorded the result
        with resume.kept({"seed": 0}, "task0") as state:
            assert state.load() == b"half"
    with resume.kept({"seed": 1}, "task0"):
        assert len(list(folder_of_states.iterdir())) == 1
    assert list(folder_of_states.iterdir()) == [], "a stage that was done before its first save leaves nothing"


def _left(facts: dict[str, Any], content: bytes) -> None:
    """Leaves a state of something that was interrupted behind."""
    with suppress(KilledError), resume.kept(facts, "task0") as state:
        assert isinstance(state, KeptState)
        assert state.load() is None
        state._pause = 0
        state.step_done(lambda: content)
        raise KilledError


def test_other_facts_code_or_libraries_have_another_state(
    monkeypatch: pytest.MonkeyPatch, folder_of_states: Path
) -> None:
    _left({"seed": 0, "train": {"lr": 0.1}}, b"half")
    for facts in ({"seed": 1, "train": {"lr": 0.1}}, {"seed": 0, "train": {"lr": 0.2}}, {"seed": 0}):
        with resume.kept(facts, "task0") as state:
            assert state.load() is None
    known = {name: getattr(resume, name) for name in ("_code", "version")}
    changed: dict[str, Callable[..., Any]] = {
        "_code": lambda: known["_code"]() | {"derain.training.learn": "changed"},
        "version": lambda name: known["version"](name) + "+other",
    }
    for name, value in changed.items():
        with monkeypatch.context() as patch:
            patch.setattr(resume, name, value)
            with resume.kept({"seed": 0, "train": {"lr": 0.1}}, "task0") as state:
                assert state.load() is None
    assert len(list(folder_of_states.iterdir())) == 1


def test_the_code_that_counts_is_all_that_is_loaded() -> None:
    code = resume._code()
    assert {
        "derain.training.learn",
        "derain.training.objective",
        "derain.training.strategy",
        "derain.training.resume",
    } <= set(code)
    assert not [name for name in code if not name.startswith(("derain", "stages"))]


@pytest.mark.parametrize("flip", [0, 40])
def test_a_damaged_state_is_not_used(flip: int, folder_of_states: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _left({"seed": 0}, b"x" * 100)
    (file,) = folder_of_states.glob("*/state")
    content = bytearray(file.read_bytes())
    content[flip] ^= 1
    file.write_bytes(content)
    with resume.kept({"seed": 0}, "task0") as state:
        assert state.load() is None
    assert "damaged" in capsys.readouterr().err


def test_two_never_share_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "PATIENCE", 0.2)
    with resume.kept({"seed": 0}, "task0"):
        with pytest.raises(BusyError, match=rf"task0: another process \(PID {os.getpid()}\)") as busy:
            resume.kept({"seed": 0}, "task0").__enter__()
        assert busy.value.exit_code == 75
        with resume.kept({"seed": 1}, "task0"):
            pass
    with resume.kept({"seed": 0}, "task0"):
        pass


def test_old_states_go_and_those_at_work_stay(monkeypatch: pytest.MonkeyPatch, folder_of_states: Path) -> None:
    _left({"seed": 0}, b"old")
    (old,) = folder_of_states.iterdir()
    long_ago = time.time() - (resume.KEPT_DAYS + 1) * 86400
    for file in old.iterdir():
        os.utime(file, (long_ago, long_ago))
    with resume.kept({"seed": 1}, "task0"):
        assert not old.exists()
    monkeypatch.setattr(resume, "KEPT_STATES", 2)
    with resume.kept({"seed": 10}, "at work"):
        for seed in range(2, 6):
            _left({"seed": seed}, b"half")
            time.sleep(0.02)  # ages differ by the clock of the files
        with resume.kept({"seed": 10_000}, "task0"):
            assert len(list(folder_of_states.iterdir())) == 3, "the two newest, and the one at work"


def test_a_folder_that_cannot_be_written_is_said_and_does_not_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path / "file"))
    with resume.kept({"seed": 0}, "task0") as state:
        assert state.load() is None
        state.step_done(lambda: b"half")
    assert "task0 cannot go on" in capsys.readouterr().err


def test_saving_costs_a_hundredth_of_the_time_however_slow_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    saves = []

    def slow_write(*_: object) -> None:
        saves.append(clock[0])
        clock[0] += 3

    monkeypatch.setattr(atomic, "write_atomically", slow_write)
    state = KeptState(tmp_path)
    while clock[0] < 10_000:
        clock[0] += 1
        state.step_done(lambda: b"")
    assert saves[0] == resume.SAVE_EVERY
    assert 3 * len(saves) <= 0.011 * clock[0]


def test_weights_that_are_no_numbers_are_never_kept(
    tiny_params: Params, packs: dict[str, Pack], hardware: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last good state stays: a step that makes a weight infinite is not saved, though its losses are finite."""
    good = Dying(tmp_path, 2)
    with pytest.raises(KilledError):
        learn_task(tiny_params, tiny_params.tasks[0], {"train": packs["heavy"]}, hardware, None, good)
    kept = good.path.read_bytes()

    def broken(learner: learn.Learner, _: object) -> dict[str, float]:
        with torch.no_grad():
            next(learner.network.parameters()).fill_(torch.inf)
        return {"supervised": 0.5}

    monkeypatch.setattr(learn, "training_step", broken)
    with pytest.raises(NumericError, match="a weight is not finite"):
        learn_task(tiny_params, tiny_params.tasks[0], {"train": packs["heavy"]}, hardware, None, Dying(tmp_path, 9))
    assert good.path.read_bytes() == kept


@pytest.mark.parametrize("part", ["loss", "gradient", "input", "teacher"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_stops_within_the_step_and_names_the_batch(
    part: str,
    value: float,
    tiny_params: Params,
    packs: dict[str, Pack],
    hardware: Hardware,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What follows the first step is broken; the weights stay as the first step left them."""
    params, task = tiny_params, tiny_params.tasks[1]
    network = plugins.load("backbones", "prenet").build(params.section("backbones"))
    strategy = plugins.load("strategies", "nr").Strategy(
        params.section("strategies"), masks.nothing_consolidated(network), hardware, {}, NEGATIVE_SSIM
    )
    step, seen = learn.training_step, []

    def injected(learner: learn.Learner, batch: Batch) -> dict[str, float]:
        seen.append([weight.detach().clone() for weight in network.parameters()])
        if len(seen) < 2:
            return step(learner, batch)
        hook: Any = nullcontext()
        if part == "input":
            batch = batch._replace(rainy=batch.rainy.index_fill(2, torch.tensor([3]), value))
        elif part == "loss":
            hook = _patched(monkeypatch, lambda *_: torch.tensor(value, requires_grad=True))
        elif part == "teacher":
            next(strategy.teacher.parameters()).fill_(value)
        else:
            weight = list(network.parameters())[-1]
            hook = weight.register_hook(lambda gradient: torch.full_like(gradient, value))
        with hook if hasattr(hook, "__enter__") else nullcontext():
            return step(learner, batch)

    monkeypatch.setattr(learn, "training_step", injected)
    learner = learner_of(network, strategy, hardware)
    with pytest.raises(NumericError, match=r"task1, epoch 1: a loss or gradient is not finite .*picture\d"):
        learn.learn(learner, task, {"train": packs["medium"]}, params.train, 0, State())
    assert len(seen) == 2
    last = dict(zip((name for name, _ in network.named_parameters()), seen[-1], strict=True))
    assert all(torch.equal(weight, last[name]) for name, weight in network.named_parameters())


def _patched(monkeypatch: pytest.MonkeyPatch, loss: Callable[..., torch.Tensor]) -> Any:
    monkeypatch.setattr(type(NEGATIVE_SSIM), "distance", loss)
    return nullcontext()


@pytest.fixture(autouse=True)
def _unlocked(folder_of_states: Path) -> Iterator[None]:
    """No test leaves a handler of signals behind."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
