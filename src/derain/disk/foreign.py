"""Reads a checkpoint from strangers in a process of its own, which may take little time and memory.

`python -m derain.disk.foreign FILE` writes the checkpoint's tensors to standard output as safetensors, or a line to
standard error that says why not. torch.load with weights_only runs no code that a pickle names; the limits stop what is
left: archives that unpack to more than the machine holds, and pickles that never end.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

SECONDS = 3
"""Of a processor's time, beyond what Python and torch take to start."""
BYTES = 2**30
"""Of memory, likewise; a checkpoint of PReNet holds 0.7 MB."""


def main() -> None:
    path = Path(sys.argv[1])
    _limit()
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        written = safetensors.torch.save(_plain(content))
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}")
    sys.stdout.buffer.write(written)
    sys.stdout.flush()
    os._exit(0)


def _plain(content: Any) -> dict[str, Tensor]:
    """The tensors by name, each with its own memory."""
    if not isinstance(content, dict) or not content:
        raise TypeError("it must map names to tensors")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout is not torch.strided:
            raise TypeError("it must map names to tensors")
    return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in content.items()}


def _limit() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file can be written
    status = Path("/proc/self/status")
    if status.exists():
        mapped = next(line for line in status.read_text().splitlines() if line.startswith("VmSize:"))
        limit = int(mapped.split()[1]) * 1024 + BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
