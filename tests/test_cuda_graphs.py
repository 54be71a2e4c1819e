"""A step that is captured or compiled is the step. Without a GPU a capture is imitated: see `Recording`."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from derain import plugins, stream
from derain.compute import hardware as hardware_module
from derain.compute.batch import Batch
from derain.compute.hardware import COMPILED_FROM, Hardware, choose
from derain.data.pack import Pack
from derain.params import Params
from derain.strategies import nr
from derain.training import cuda_graphs, masks
from derain.training.cuda_graphs import CapturedBatches
from derain.training.learn import learn, training_step
from derain.training.micro_batches import MicroBatches
from derain.training.resume import NOT_KEPT, State
from derain.types import NumericError, ParamsError
from tests.conftest import NEGATIVE_SSIM, by_role, learner_of, random_batch
from tests.test_states import Dying, KilledError

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class Recording(TorchDispatchMode):
    """Imitates a CUDA graph: notes every operation with the tensors it reads and writes, and repeats them in place.

    As in a real capture, nothing that Python does is repeated, and asking for a number's value is an error.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, before in self.operations:
                result = func(*args, **kwargs)
                for old, new in zip(_tensors(before), _tensors(result), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)


def _tensors(result: Any) -> list[Tensor]:
    parts = result if isinstance(result, (list, tuple)) else [result]
    return [tensor for tensor in parts if isinstance(tensor, Tensor)]


@pytest.fixture
def imitated(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """The processor taken for a GPU. Returns what is captured."""
    captured: list[Recording] = []

    def graph() -> Recording:
        captured.append(Recording())
        return captured[-1]

    for name, value in {
        "Stream": mock.MagicMock(),
        "current_stream": mock.MagicMock(),
        "stream": lambda stream: contextlib.nullcontext(),
        "device": lambda device: contextlib.nullcontext(),
        "CUDAGraph": graph,
        "graph": lambda graph, stream: graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(Hardware, "is_gpu", True)
    return captured


@pytest.fixture(autouse=True)
def stance() -> Iterator[None]:
    """What is compiled after a test is compiled again."""
    yield
    torch.compiler.set_stance("default")
    hardware_module._compiled.cache_clear()
    torch._dynamo.reset()


def network_of(params: Params) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = plugins.load("backbones", "prenet").build(params.section("backbones"))
    return network


def learned(
    params: Params, pack: Pack, where: Hardware, micro_batch: int | None, state: State = NOT_KEPT
) -> tuple[nn.Module, Any, dict[str, Tensor]]:
    """A task under NR, away from its teacher, with half of the weights consolidated; its last batches are smaller."""
    network = network_of(params).to(where.device)
    torch.manual_seed(1)
    half = {name: torch.rand(weight.shape) < 0.5 for name, weight in network.named_parameters()}
    strategy = nr.Strategy(params.section("strategies"), half, where, {}, NEGATIVE_SSIM)
    train = params.train.model_copy(
        update={"steps_per_epoch": None, "epochs": 5, "batch": 3, "micro_batch": micro_batch}
    )
    parts = cuda_graphs.micro_batches(micro_batch, network, NEGATIVE_SSIM, where)
    learner = learner_of(network, strategy, where, parts)
    history, trace = learn(learner, params.tasks[1], {"train": pack}, train, 0, state)
    return network, history, trace


def plain() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(cuda_graphs, "micro_batches", lambda size, *_: MicroBatches(size))


@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_captured_training_has_the_bits_of_a_plain_one(
    tiny_params: Params,
    packs: dict[str, Pack],
    imitated: list[Recording],
    micro_batch: int | None,
    precision: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = Hardware(torch.device("cpu"), precision)
    network, history, trace = learned(tiny_params, packs["medium"], where, micro_batch)
    assert len(imitated) == 2, "one graph for whole batches, one for the last of an epoch"
    assert "warning" not in capsys.readouterr().err
    with plain():
        other, other_history, other_trace = learned(tiny_params, packs["medium"], where, micro_batch)
    assert len(imitated) == 2
    assert history == other_history
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name
        assert torch.equal(trace[name], other_trace[name]), name


def test_an_interrupted_training_goes_on_bit_for_bit(
    tiny_params: Params, packs: dict[str, Pack], hardware: Hardware, imitated: list[Recording], tmp_path: Path
) -> None:
    """Also of Adam's own state, which is on the GPU when it is fused."""
    whole, history, _ = learned(tiny_params, packs["medium"], hardware, None)
    with pytest.raises(KilledError):
        learned(tiny_params, packs["medium"], hardware, None, Dying(tmp_path, 7))
    resumed, other_history, _ = learned(tiny_params, packs["medium"], hardware, None, Dying(tmp_path, -1))
    assert history == other_history
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def broken_capture(graph: Recording, stream: Any) -> Any:
    raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with ...")


@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ((torch.cuda, "graph", broken_capture), "(RuntimeError: CUDA error: operation not permitted when stream is"),
        ((Recording, "replay", lambda recording: None), "a replayed step has another gradient"),
    ],
    ids=["cannot be captured", "replays something else"],
)
def test_a_capture_that_fails_is_told_once_and_changes_nothing(
    tiny_params: Params,
    packs: dict[str, Pack],
    hardware: Hardware,
    imitated: list[Recording],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    micro_batch: int | None,
    spoil: tuple[Any, str, Any],
    told: str,
) -> None:
    monkeypatch.setattr(*spoil)
    network, history, _ = learned(tiny_params, packs["medium"], hardware, micro_batch)
    warned = capsys.readouterr().err
    assert warned.count("warning") == 1
    assert told in warned
    with plain():
        other, other_history, _ = learned(tiny_params, packs["medium"], hardware, micro_batch)
    assert history == other_history
    assert all(map(torch.equal, network.parameters(), other.parameters()))


class Poisoning(State):
    """Makes a network's weights no numbers once both shapes of batches are captured."""

    def __init__(self, network: nn.Module, captured: list[Recording]) -> None:
        self.network, self.captured = network, captured
        self.steps_left = 1

    def step_done(self, content: Callable[[], bytes]) -> None:
        if len(self.captured) == 2:
            assert self.steps_left, "a step on weights that are no numbers was counted"
            self.steps_left -= 1
            for weight in self.network.parameters():
                weight.data.fill_(float("nan"))


def test_a_loss_that_is_no_number_stops_a_captured_training_at_once(
    tiny_params: Params, packs: dict[str, Pack], hardware: Hardware, imitated: list[Recording]
) -> None:
    network = network_of(tiny_params)
    strategy = nr.Strategy(
        tiny_params.section("strategies"), masks.nothing_consolidated(network), hardware, {}, NEGATIVE_SSIM
    )
    train = tiny_params.train.model_copy(update={"steps_per_epoch": None, "epochs": 9, "batch": 3})
    state = Poisoning(network, imitated)
    parts = cuda_graphs.micro_batches(None, network, NEGATIVE_SSIM, hardware)
    learner = learner_of(network, strategy, hardware, parts)
    with pytest.raises(NumericError, match=r"not finite \(supervised nan"):
        learn(learner, tiny_params.tasks[1], {"train": packs["medium"]}, train, 0, state)
    assert state.steps_left == 0


def test_a_sample_that_does_not_fit_is_told(tiny_params: Params, imitated: list[Recording]) -> None:
    def exhaust(parts: Iterator[Batch]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    batches = CapturedBatches(None, network_of(tiny_params), torch.device("cpu"))
    with pytest.raises(ParamsError, match=r"train\.patch"):
        batches.within_memory(Batch(*random_batch(0)), exhaust)


def test_only_long_trainings_on_a_gpu_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    where = Hardware(torch.device("cpu"), "fp32")
    assert not where.for_steps(COMPILED_FROM).compiled
    monkeypatch.setattr(Hardware, "is_gpu", True)
    assert where.for_steps(COMPILED_FROM).compiled
    assert not where.for_steps(COMPILED_FROM - 1).compiled


def one_step(params: Params, where: Hardware, captured: bool = False, times: int = 1) -> tuple[nn.Module, Any]:
    """A step of NR away from its teacher, or several on the same batch, by SGD, which shows the gradient itself."""
    network = network_of(params).to(where.device)
    strategy = nr.Strategy(params.section("strategies"), masks.nothing_consolidated(network), where, {}, NEGATIVE_SSIM)
    strategy.before_task(network)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.01)
    rainy, clean = random_batch(0)
    batch = Batch(rainy.to(where.device), clean.to(where.device))
    parts = CapturedBatches(None, network, where.device) if captured else MicroBatches()
    learner = learner_of(network, strategy, where, parts, sgd=1)
    for _ in range(times):
        losses = training_step(learner, batch)
    return network, losses


@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-5), ("bf16", 0.02)])
def test_a_compiled_step_is_the_step(
    tiny_params: Params, precision: str, largest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced as one graph for student and teacher each; no compiler is needed for that."""
    traced = torch.compile(hardware_module._call, backend="aot_eager", fullgraph=True, dynamic=False)
    monkeypatch.setattr(hardware_module, "_compiled", lambda: traced)
    plain, losses = one_step(tiny_params, Hardware(torch.device("cpu"), precision))
    compiled, other_losses = one_step(tiny_params, Hardware(torch.device("cpu"), precision, compiled=True))
    assert other_losses == pytest.approx(losses, rel=largest)
    start = network_of(tiny_params)
    for begin, one, other in zip(start.parameters(), plain.parameters(), compiled.parameters(), strict=True):
        assert (one - other).norm() <= largest * (one - begin).norm()


def test_a_compiled_network_bears_no_mark_of_it(tiny_params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = torch.compile(hardware_module._call, backend="eager", dynamic=False)
    monkeypatch.setattr(hardware_module, "_compiled", lambda: traced)
    network = network_of(tiny_params)
    rainy = random_batch(0)[0]
    where = Hardware(torch.device("cpu"), "fp32", compiled=True)
    assert torch.equal(where.forward(network, rainy).derained, network(rainy).derained)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin.get_parameter("conv.0.bias").add_(1)
    assert not torch.equal(where.forward(twin, rainy).derained, where.forward(network, rainy).derained)
    assert network.state_dict().keys() == network_of(tiny_params).state_dict().keys()


def test_a_compiler_that_fails_is_told_once_and_changes_nothing(
    tiny_params: Params,
    imitated: list[Recording],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def without_compiler(module: Any, inputs: Any) -> Any:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    failing = torch.compile(hardware_module._call, backend=without_compiler, dynamic=False)
    monkeypatch.setattr(hardware_module, "_compiled", lambda: failing)
    where = Hardware(torch.device("cpu"), "fp32")
    expected, losses = one_step(tiny_params, where)
    compiled, other_losses = one_step(tiny_params, Hardware(where.device, "fp32", compiled=True), captured=True)
    assert capsys.readouterr().err.count("warning: steps are neither compiled nor captured") == 1
    assert losses == other_losses
    assert all(map(torch.equal, expected.parameters(), compiled.parameters()))


@NO_GPU
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_replays_what_it_computes(
    tiny_params: Params, packs: dict[str, Pack], precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = choose("cuda", precision)
    where.set_up_process()
    network, history, _ = learned(tiny_params, packs["medium"], where, None)
    assert "warning" not in capsys.readouterr().err
    with plain():
        other, other_history, _ = learned(tiny_params, packs["medium"], where, None)
    assert history == other_history
    assert all(map(torch.equal, network.parameters(), other.parameters()))


@NO_GPU
@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-3), ("bf16", 0.05)])
def test_a_gpu_compiles_and_captures_the_step(
    tiny_params: Params,
    precision: str,
    largest: float,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = choose("cuda", precision)
    where.set_up_process()
    replays = mock.Mock(side_effect=cuda_graphs._Graph.replay, autospec=True)
    monkeypatch.setattr(cuda_graphs._Graph, "replay", lambda graph, batch: replays(graph, batch))
    steps = cuda_graphs.WARM_UP + 2
    plain, losses = one_step(tiny_params, where, times=steps)
    twice = []
    for _ in range(2):
        compiled, other_losses = one_step(tiny_params, where.for_steps(COMPILED_FROM), True, steps)
        twice.append(compiled)
        assert other_losses == pytest.approx(losses, rel=largest)
    assert "warning" not in capsys.readouterr().err
    assert replays.call_count == 2 * 3, "one to compare, two steps"
    for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert (one - other).norm() <= largest * one.norm()
    assert all(map(torch.equal, twice[0].parameters(), twice[1].parameters())), "compiled anew, the same bits"


@NO_GPU
def test_a_gpu_learns_a_stream(tiny_params: Params, packs: dict[str, Pack], capsys: pytest.CaptureFixture[str]) -> None:
    """All of it together, twice: the same bits."""
    where = choose("cuda", "auto")
    streams = [list(stream.learn_stream(tiny_params, by_role(packs), where)) for _ in range(2)]
    for (_, one), (_, other) in zip(*streams, strict=True):
        assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
        assert all(torch.equal(one.mask[name], other.mask[name]) for name in one.mask)
    assert "warning" not in capsys.readouterr().err
