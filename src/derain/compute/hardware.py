"""Where the computation runs, in which precision, and with how many threads."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from derain.compute import distributed
from derain.types import DEVICES, ParamsError, Restored

PRECISIONS = ("auto", "fp32", "bf16")

COMPILED_FROM = 20_000
"""Steps of a task from which on its networks are compiled on a GPU: fewer do not make up for a minute of compiling."""


_PIXELS_AT_ONCE = 60_000
"""Six crops of 100x100: measured on two cores with 32 MB of cache; a step takes 6 % less time than with 18 at once."""


@dataclass(frozen=True)
class Hardware:
    """A device and the precision of the network's forward pass; weights and losses stay in fp32.

    `compiled` is whether `forward` runs networks through torch.compile.
    """

    device: torch.device
    precision: str
    compiled: bool = False

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def pixels_at_once(self) -> int | None:
        """How many pixels of a batch are fastest at once, so that a layer stays in the cache; None: all of them."""
        return _PIXELS_AT_ONCE if self.device.type == "cpu" and self.precision == "fp32" else None

    def set_up_process(self, threads: int | None = None) -> None:
        """Makes this process deterministic, keeps fp32 exact, and on the CPU keeps freed memory.

        These are settings of torch and glibc, for all that the process computes from then on.

        Args:
            threads: CPU threads; None leaves torch's own number. Results are bit-stable for one number of threads.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # Else each new tensor is filled before it is written: 3 % of a training step, and no result depends on it.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        # fp32 means fp32: by default a GPU convolves in TF32, with ten bits of mantissa.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        if not self.is_gpu:
            _keep_freed_memory()

    def autocast(self) -> AbstractContextManager[None]:
        """The context for a forward pass: bf16 where `precision` says so, else nothing."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def for_steps(self, steps: int) -> Hardware:
        """The same hardware for a training of so many steps: on a GPU long ones are compiled, each anew."""
        if compiled := self.is_gpu and steps >= COMPILED_FROM:
            # Shapes of trainings before count against the compiler's limit, beyond which it gives up.
            _compiled.cache_clear()
            torch._dynamo.reset()
        return replace(self, compiled=compiled)

    def forward(self, network: nn.Module, rainy: Tensor) -> Restored:
        """What a network makes of pictures (N, 3, H, W), in this precision."""
        with self.autocast():
            return cast(Restored, (_compiled() if self.compiled else _call)(network, rainy))

    def describe(self) -> dict[str, str | int]:
        """What changes the bytes of a result: device, precision, threads, instruction set, library versions.

        And the number of processes, where there are several.
        """
        name = torch.cuda.get_device_name(self.device) if self.is_gpu else "cpu"
        return {
            "device": name,
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
            **({"processes": distributed.size()} if distributed.size() > 1 else {}),
        }


def choose(device: str = "auto", precision: str = "auto") -> Hardware:
    """Chooses device and precision where they are `auto`, and changes nothing: see `Hardware.set_up_process`.

    Args:
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`. Of several processes on a host each takes
            a GPU of its own, so that `cuda:N` is not allowed.
        precision: `auto` (bf16 where the hardware computes in it natively), `fp32` or `bf16`.

    Raises:
        ParamsError: the device is not there, or one of the names is none of these.
    """
    if not re.fullmatch(DEVICES, device):
        raise ParamsError(f"device: {device!r} is not allowed. Use auto, cpu, cuda or cuda:N.")
    if precision not in PRECISIONS:
        raise ParamsError(f"precision: {precision!r} is not allowed. Use one of {', '.join(PRECISIONS)}.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        if distributed.size() > 1:
            device = _own_gpu(device)
        index = int(device.partition(":")[2] or 0)
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise ParamsError(f"device: {device!r} is not there ({torch.cuda.device_count()} GPUs). Use auto or cpu.")
    if precision == "auto":
        precision = "bf16" if _computes_bf16(device) else "fp32"
    return Hardware(torch.device(device), precision)


def processor() -> str:
    """The name of the processor's model: another one may give other last digits."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return model[1] if model else platform.processor() or platform.machine()


def _call(network: nn.Module, rainy: Tensor) -> Any:
    return network(rainy)


@lru_cache(maxsize=1)
def _compiled() -> Any:
    # A function that is given the network, instead of a compiled network: that would leave its mark on the network.
    return torch.compile(_call, dynamic=False)


def _keep_freed_memory() -> None:
    """Keeps glibc from giving the memory of each freed tensor back to the system, which zeroes it anew: mallopt(3)."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_max = -1, -4
        libc.mallopt(trim_threshold, -1)
        libc.mallopt(mmap_max, 0)


def _own_gpu(device: str) -> str:
    if ":" in device:
        raise ParamsError(
            f"device: {device!r} is one GPU, and each of several processes needs its own. Use auto or cuda."
        )
    if distributed.gpu() >= torch.cuda.device_count():
        raise ParamsError(
            f"launch: more processes than GPUs on a host ({torch.cuda.device_count()}). Start one for each, or use "
            "device: cpu."
        )
    return f"cuda:{distributed.gpu()}"


def _computes_bf16(device: str) -> bool:
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
