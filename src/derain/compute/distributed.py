"""Several processes at work on one stage, started by torchrun: who does what, and what they tell one another.

Each process holds the whole network and computes its share of a batch; then all add up their gradients and take the
same step. This is done in the open, by one all_reduce of all gradients after the last of the batch's parts, instead of
by torch's DistributedDataParallel: that averages within each backward pass and as if all shares were equal, waits for
ever for a process whose share is empty, and renames the weights, whose names are the keys of masks and models. What it
gains, communication while gradients are still computed, is little here: PReNet's 168,963 weights are 0.7 MB.

Alone (not under torchrun, or under it with one process) nothing here communicates, copies or changes anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from derain import console
from derain.compute.batch import Batch
from derain.types import DataError, DerainError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

# A process that dies is noticed at once; this is for one that waits while another still evaluates or writes.
_PATIENCE = timedelta(hours=12)

T = TypeVar("T")


class LostError(DerainError):
    """Another process of the same run has ended before its time."""


def together(main: Callable[[], Any]) -> Callable[[], Any]:
    """`main` as one of the processes that torchrun has started: they begin together, and none ends before all are done.

    Only the first of them prints what it is at, and only the first that fails says why.
    """
    if not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        return main

    def among_others() -> None:
        store = _join()
        console.out.quiet = not is_main()
        try:
            main()
            greatest(0)  # what is shared by all is known when all have come here
        except BaseException:
            console.err.quiet = not _ends_first(store)
            raise

    return among_others


def _join() -> Store:
    store: Store
    store, number, count = next(rendezvous("env://", timeout=_PATIENCE))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=_PATIENCE)
    return store


def _ends_first(store: Store) -> bool:
    try:
        return int(store.add("ended", 1)) == 1
    except RuntimeError:  # the store has gone with its host
        return True


def rank() -> int:
    """The number of this process among all, from 0 on."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes are at work on this stage, on all hosts."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def gpu() -> int:
    """The number of the GPU that is this process's own on its host."""
    return int(os.environ["LOCAL_RANK"])


def own(batch: Batch) -> Batch:
    """The part of a batch that is this process's; all of it where it is alone.

    Where there are fewer samples than processes, one without any takes one that counts nothing: it then has the same
    losses and gradients as the others, all zero.
    """
    count = len(batch.rainy)
    start, stop = (count * number // size() for number in (rank(), rank() + 1))
    part = slice(start, max(stop, start + 1))
    return batch.part(part)._replace(share=batch.share * ((stop - start) / count))


def share_buffers(modules: Iterable[nn.Module]) -> None:
    """Gives all processes the main one's buffers (running statistics), in place, as DistributedDataParallel does."""
    if size() == 1:
        return
    with _lost():
        for module in modules:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)


def add_up(weights: Sequence[nn.Parameter], losses: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Adds up the gradients, in place, and the losses of all processes, each of them weighted by its share before."""
    if size() == 1:
        return losses
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    tensors = [*gradients, *losses.values()]
    flat = _flat(tensors)
    with _lost():
        dist.all_reduce(flat)
    sums = _as(tensors, flat)
    for gradient, total in zip(gradients, sums, strict=False):
        gradient.copy_(total)
    return dict(zip(losses, sums[len(gradients) :], strict=True))


def gather(tensors: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    """The tensors of all processes, in the order of the processes."""
    if size() == 1:
        return [tensors]
    flat = _flat(tensors)
    flats = [torch.empty_like(flat) for _ in range(size())]
    with _lost():
        dist.all_gather(flats, flat)
    return [_as(tensors, flat) for flat in flats]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _as(tensors: Sequence[Tensor], flat: Tensor) -> list[Tensor]:
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def dealt(count: int) -> range:
    """Which of `count` items are this process's: each one is exactly one process's."""
    return range(rank(), count, size())


def in_order(own: list[T]) -> list[T]:
    """The results of all processes for the items that were `dealt`, in the order of the items."""
    if size() == 1:
        return own
    hands = _objects(own)
    return [hands[number % size()][number // size()] for number in range(sum(map(len, hands)))]


def same_from_main(content: bytes | None) -> bytes | None:
    """The main process's content, for all."""
    told = [content]
    with _lost():
        dist.broadcast_object_list(told, src=0)
    return told[0]


def greatest(number: int) -> int:
    """The greatest of all processes' numbers. Returns when all have asked."""
    told = torch.tensor(number)
    with _lost():
        dist.all_reduce(told, dist.ReduceOp.MAX)
    return int(told)


def check_alike(fingerprint: str, what: str) -> None:
    """Raises DataError where another process is about to do something else, on a host whose files differ."""
    if size() == 1:
        return
    told = _objects(fingerprint)
    others = [str(number) for number, other in enumerate(told) if other != told[0]]
    if others:
        raise DataError(
            f"{what}: process {', '.join(others)} differs from process 0 in code, parameters, data, libraries, or "
            "processor. All hosts need the same project, the same results of earlier stages, and the same hardware."
        )


def _objects(own: T) -> list[T]:
    told: list[Any] = [None] * size()
    with _lost():
        dist.all_gather_object(told, own)
    return told


@contextmanager
def _lost() -> Iterator[None]:
    """Within it, the end of another process is a LostError."""
    try:
        yield
    except RuntimeError:
        raise LostError(
            "another process of this run has ended, and has not said why: the system may have killed it, out of memory."
        ) from None
