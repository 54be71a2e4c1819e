"""On a GPU, a step's forward and backward pass as a CUDA graph: one launch in place of those of all its kernels.

At batch 18 the kernels are so short that starting them one by one takes longer than they do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from derain.compute import distributed
from derain.compute.hardware import Hardware
from derain.console import in_one_line, warn
from derain.training.micro_batches import MicroBatches, parts_of
from derain.training.objective import Objective
from derain.types import Batch, DerainError, ParamsError

WARM_UP = 3
"""Steps of a shape that run as they are before they are captured: libraries and compilers set themselves up in them."""

_TOLERANCE = 1e-3
"""Of the gradient's norm: far above rounding, far below a gradient of something else."""

T = TypeVar("T")


def micro_batches(size: int | None, network: nn.Module, objective: Objective, hardware: Hardware) -> MicroBatches:
    """How a task's batches go through the network: captured on a GPU, step by step elsewhere.

    Raises:
        ParamsError: `size` would split samples that are coupled.
    """
    buffers = [*network.buffers(), *objective.buffers()]
    if getattr(network, "samples_coupled", False) or objective.samples_coupled:
        if size is not None:
            raise ParamsError(
                f"params.yaml: train.micro_batch: {size} is not allowed. The samples of a batch are coupled (batch "
                "normalization), so that it cannot be split: set it to null."
            )
        return MicroBatches(coupled=True, buffers=buffers)
    # A capture runs its work more than once, and knows the gradients of the network alone.
    if hardware.is_gpu and not buffers and not list(objective.parameters()):
        return CapturedBatches(size, network, hardware.device)
    return MicroBatches(size, hardware.pixels_at_once, buffers=buffers)


class CapturedBatches(MicroBatches):
    """Micro-batches whose work is captured once for each shape of a batch, and replayed from then on.

    The work must be the same for all batches of a shape: a function of the batch and of tensors that are changed in
    place only (weights), which leaves its gradients in `network` and never waits for the GPU. Where it cannot be
    captured, or a compiled network fails, a warning says so once and all goes on as on the CPU.
    """

    def __init__(self, size: int | None, network: nn.Module, device: torch.device) -> None:
        super().__init__(size)
        self._network, self._device = network, device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._done: Counter[tuple[object, ...]] = Counter()
        self._graphs: dict[tuple[object, ...], _Graph] = {}
        self._plain = False

    def within_memory(self, batch: Batch, work: Callable[[Iterator[Batch]], T]) -> T:
        if not self._plain:
            try:
                with torch.cuda.device(self._device):
                    return self._captured(batch, work)
            except DerainError:
                raise
            except Exception as error:
                self._give_up(error)
        # Outside of the handler, whose error holds what the failed attempt has allocated.
        return super().within_memory(batch, work)

    def _captured(self, batch: Batch, work: Callable[[Iterator[Batch]], T]) -> T:
        if distributed.size() > 1:  # NCCL's own threads may disturb a capture
            return super().within_memory(batch, work)
        shape = (*(tensor.shape for tensor in batch.tensors), batch.share)
        if shape not in self._graphs:
            if self._done[shape] < WARM_UP:
                self._done[shape] += 1
                with _beside(self._stream):
                    return super().within_memory(batch, work)
            self._graphs[shape] = _Graph(self._network, batch, self.size, work, self._stream)
            self._compare(self._graphs[shape], batch, work)
        graph: _Graph[T] = self._graphs[shape]
        return graph.replay(batch)

    def _compare(self, graph: _Graph[T], batch: Batch, work: Callable[[Iterator[Batch]], T]) -> None:
        """Refuses a graph that does not repeat the work, as it is now: what only Python changes later is not seen."""
        with _beside(self._stream):
            super().within_memory(batch, work)
        expected = [weight.grad for weight in self._network.parameters() if weight.grad is not None]
        expected = [gradient.clone() for gradient in expected]
        graph.replay(batch)
        gradients = [weight.grad for weight in self._network.parameters() if weight.grad is not None]
        bound = _TOLERANCE * nn.utils.get_total_norm(expected)
        difference = nn.utils.get_total_norm([one - other for one, other in zip(gradients, expected, strict=True)])
        if difference > bound:  # false where a gradient is not finite, which the step itself tells
            raise RuntimeError(f"a replayed step has another gradient: {difference:.1e} apart, of {bound:.1e} allowed")

    def _give_up(self, error: Exception) -> None:
        self._plain = True
        self._graphs.clear()
        torch.compiler.set_stance("force_eager")
        warn(f"steps are neither compiled nor captured, and take longer ({in_one_line(error)})")


class _Graph(Generic[T]):
    """The kernels of a batch's work, with the tensors that they read and write."""

    def __init__(
        self,
        network: nn.Module,
        batch: Batch,
        size: int | None,
        work: Callable[[Iterator[Batch]], T],
        stream: torch.cuda.Stream,
    ) -> None:
        # Another batch of the same shape, so that a comparison on this one sees whatever was taken for constant.
        self._batch = batch.map(_mirrored)
        self._graph = torch.cuda.CUDAGraph()
        # A capture that fails may leave its stream the current one; this puts back what was.
        with torch.cuda.stream(stream), torch.cuda.graph(self._graph, stream=stream):
            self._result = work(parts_of(self._batch, size or len(batch.rainy)))
        self._weights = list(network.parameters())
        self._gradients = [weight.grad for weight in self._weights]

    def replay(self, batch: Batch) -> T:
        """The work on another batch of the same shape; what it returns is overwritten by the next replay."""
        for own, given in zip(self._batch.tensors, batch.tensors, strict=True):
            own.copy_(given)
        self._graph.replay()
        # Steps of another shape have put gradients of their own in the place of these.
        for weight, gradient in zip(self._weights, self._gradients, strict=True):
            weight.grad = gradient
        return self._result


def _mirrored(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor).copy_(tensor.flip(-1))


@contextmanager
def _beside(stream: torch.cuda.Stream) -> Iterator[None]:
    """Within it, work goes to a stream of its own, after what was asked for before and before what follows.

    What is to be captured must have run on the stream of the capture, where autograd keeps to it.
    """
    stream.wait_stream(torch.cuda.current_stream())
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        torch.cuda.current_stream().wait_stream(stream)
