"""Checkpoints from strangers who mean harm: each is refused within seconds, runs nothing and writes nothing.

Published networks come as `.pth`, pickles in which a stranger may name any function; safetensors have headers that may
say anything. What a hostile file tries to do is to make a file beside itself.
"""

from __future__ import annotations

import io
import itertools
import json
import pickle
import random
import struct
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from derain.disk import artifacts, networks
from derain.types import DerainError
from torture._figures import Figures

COUNT = 60
_RAN = "ran"
"""The file that is there when a hostile checkpoint has run something."""


def run(seed: int, count: int) -> Figures:
    rng = random.Random(seed)  # noqa: S311 - no secret
    counts: Counter[str] = Counter()
    faults: list[str] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, content in itertools.islice(_in_another_order(rng, Path(folder)), count):
            path = Path(folder) / name
            path.write_bytes(content)
            start = time.monotonic()
            faults += [f"{name}: {fault}" for fault in _fate(path)]
            slowest = max(slowest, time.monotonic() - start)
            counts[f"{path.suffix} files"] += 1
            path.unlink()
            faults += [f"{name}: wrote {file.name}" for file in Path(folder).iterdir()]
    return Figures({**counts, "seconds of the slowest": slowest}, faults)


def _in_another_order(rng: random.Random, folder: Path) -> Iterator[tuple[str, bytes]]:
    files = {**_pickles(folder / _RAN), **_archives(), **_safetensors()}
    names = sorted(files)
    while True:
        rng.shuffle(names)
        yield from ((name, files[name]()) for name in names)


def _fate(path: Path) -> Iterator[str]:
    try:
        networks.load_network(path)
    except DerainError as error:
        if path.name not in str(error) or len(str(error).splitlines()) != 1 or len(str(error)) > 600:
            yield f"its message is no line that names it: {str(error)[:200]}"
    except BaseException as error:
        yield f"{type(error).__name__}: {error}"
    else:
        yield "was taken for a network"


class _Calls:
    """Pickled as a call of a function: unpickling makes the call."""

    def __init__(self, function: str, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def pickled(self, protocol: int) -> bytes:
        """By hand: no function needs to be here to be named."""
        module, _, name = self.function.rpartition(".")
        arguments = pickle.dumps(self.arguments, protocol)
        body = arguments[2 : arguments.rindex(b".")] if protocol >= 2 else arguments[:-1]
        if protocol >= 4 and body[:1] == b"\x95":  # the frame, whose length is another one now
            body = body[9:]
        head = b"\x80" + bytes([protocol]) if protocol >= 2 else b""
        return head + b"c" + f"{module}\n{name}\n".encode() + body + b"R."


def _pickles(ran: Path) -> dict[str, Callable[[], bytes]]:
    """Pickles that call a function, in all shapes that torch.load reads."""
    touch = f"open({str(ran)!r}, 'w')"
    calls = {
        "system": _Calls("os.system", f"touch {ran}"),
        "posix": _Calls("posix.system", f"touch {ran}"),
        "popen": _Calls("subprocess.Popen", ["touch", str(ran)]),
        "check_output": _Calls("subprocess.check_output", ["touch", str(ran)]),
        "eval": _Calls("builtins.eval", touch),
        "exec": _Calls("builtins.exec", touch),
        "open": _Calls("builtins.open", str(ran), "w"),
        "io-open": _Calls("io.open", str(ran), "w"),
        "runpy": _Calls("runpy._run_code", touch, {}),
        "pty": _Calls("pty.spawn", ["touch", str(ran)]),
        "timeit": _Calls("timeit.timeit", touch),
        "webbrowser": _Calls("webbrowser.open", "http://127.0.0.1:9/"),
        "import": _Calls("importlib.import_module", "antigravity"),
        "shutil": _Calls("shutil.rmtree", str(ran.parent)),
        "breakpoint": _Calls("builtins.breakpoint"),
        "getattr": _Calls("builtins.getattr", "os", "system"),
        "hub": _Calls("torch.hub.load", "a/b", "c"),
        "torch-load": _Calls("torch.load", str(ran)),
        "torch-save": _Calls("torch.save", 1, str(ran)),
        "script": _Calls("torch.jit.load", str(ran)),
        "extension": _Calls("torch.utils.cpp_extension.load_inline", "x", "int x;"),
        "ctypes": _Calls("ctypes.CDLL", "libc.so.6"),
        "socket": _Calls("socket.create_connection", ("127.0.0.1", 9)),
        "numpy": _Calls("numpy.savetxt", str(ran), [1]),
    }
    files: dict[str, Callable[[], bytes]] = {}
    for number, (name, call) in enumerate(calls.items()):
        protocol = (0, 2, 3, 4)[number % 4]
        files[f"{name}-bare.pth"] = lambda call=call, protocol=protocol: call.pickled(protocol)  # type: ignore[misc]
        if number % 2:
            files[f"{name}-zip.pth"] = lambda call=call: _zip({"data.pkl": call.pickled(2)})  # type: ignore[misc]
    return files | {
        "nested.pth": lambda: b"(" * 10**6 + b"t" * 10**6 + b".",
        "doubling.pth": lambda: b"\x80\x02K\x01" + b"2\x86" * 200 + b".",
        "long-number.pth": lambda: b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\xff" * 100,
        "long-text.pth": lambda: b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x" * 100,
        "long-bytes.pth": lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x" * 100,
        "frame.pth": lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
        "persistent.pth": lambda: b"Pevil\n.",
        "extension-code.pth": lambda: b"\x80\x02\x82\x01.",
        "no-end.pth": lambda: b"\x80\x02" + b"N0" * 10**6,
    }


def _zip(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A checkpoint's zip archive around a pickle."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, data in {"version": b"3\n", "byteorder": b"little", **members}.items():
            archive.writestr(f"archive/{name}", data)
    return content.getvalue()


def _saved(content: Any) -> bytes:
    written = io.BytesIO()
    torch.save(content, written)
    return written.getvalue()


def _with_pickle(change: Callable[[bytes], bytes]) -> bytes:
    """A true checkpoint with another pickle in it."""
    with zipfile.ZipFile(io.BytesIO(_saved({"conv0.0.weight": torch.ones(2, 6, 3, 3)}))) as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    members["data.pkl"] = change(members["data.pkl"])
    return _zip(members)


def _archives() -> dict[str, Callable[[], bytes]]:
    """Zip archives of tensors that lie about themselves."""
    tensor = torch.ones(2, 6, 3, 3)
    return {
        "bomb.pth": lambda: _zip({"data.pkl": b"\x80\x02" + b"N0" * 2**29}, zipfile.ZIP_DEFLATED),
        "outside.pth": lambda: _zip({"../../ran": b"x", "data.pkl": b"N."}),
        "empty.pth": lambda: _zip({}),
        "no-tensors.pth": lambda: _saved({"conv0.0.weight": 5}),
        "list.pth": lambda: _saved([tensor]),
        "numbers-as-names.pth": lambda: _saved({1: tensor}),
        "sparse.pth": lambda: _saved({"conv0.0.weight": tensor.to_sparse()}),
        "expanded.pth": lambda: _saved({"conv0.0.weight": torch.ones(1).expand(2**20, 2**16)}),
        "other-network.pth": lambda: _saved({"weight": tensor}),
        "negative-offset.pth": lambda: _with_pickle(lambda content: content.replace(b"K\x00(", b"J\xff\xff\xff\xff(")),
        "large-stride.pth": lambda: _with_pickle(lambda content: content.replace(b"K6", b"J\xff\xff\xff\x7f")),
        "wide.pth": lambda: _saved({"conv0.0.weight": torch.ones(1).expand(2**40, 6, 3, 3)}),
        "cut.pth": lambda: _saved({"conv0.0.weight": tensor})[:-300],
    }


def _header(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _described(made: Any) -> bytes:
    """Safetensors of this project, their checksum right, that describe themselves in this way."""
    tensors = {"conv0.0.weight": torch.ones(2, 6, 3, 3)}
    made = {**made, "sha256": artifacts.checksum(tensors, made)} if isinstance(made, dict) else made
    return safetensors.torch.save(tensors, {"derain": json.dumps(made, sort_keys=True)})


def _safetensors() -> dict[str, Callable[[], bytes]]:
    """Safetensors whose headers lie."""

    def tensor(begin: int, end: int, *shape: int) -> dict[str, Any]:
        return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}

    size = {"channels": 2, "stages": 2, "blocks": 1}
    vast = {"channels": 1024, "stages": 64, "blocks": 64}
    return {
        "huge-header.safetensors": lambda: struct.pack("<Q", 2**63) + b"{}",
        "deep-header.safetensors": lambda: _header(b"[" * 10**6),
        "overlap.safetensors": lambda: _header({"a": tensor(0, 8, 2), "b": tensor(4, 12, 2)}, b"\0" * 12),
        "beyond.safetensors": lambda: _header({"a": tensor(0, 2**40, 2**38)}, b"\0" * 12),
        "negative.safetensors": lambda: _header(
            b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', b"0000"
        ),
        "overflow.safetensors": lambda: _header({"a": tensor(0, 4, 2**62, 2**62)}, b"\0" * 4),
        "nothing-said.safetensors": lambda: _header({"a": tensor(0, 4, 1)}, b"\0" * 4),
        "deep-description.safetensors": lambda: safetensors.torch.save(
            {"a": torch.ones(1)}, {"derain": "[" * 10**6 + "]" * 10**6}
        ),
        "other-file.safetensors": lambda: _described({"backbone": "../../stages/download", "x": size}),
        "private.safetensors": lambda: _described({"backbone": "__init__", "__init__": size}),
        "no-text.safetensors": lambda: _described({"backbone": ["prenet"], "prenet": size}),
        "no-section.safetensors": lambda: _described({"backbone": "prenet"}),
        "vast.safetensors": lambda: _described({"backbone": "prenet", "prenet": vast}),
        "many-stages.safetensors": lambda: _described({"backbone": "prenet", "prenet": size | {"stages": 10**9}}),
        "text-size.safetensors": lambda: _described({"backbone": "prenet", "prenet": size | {"channels": "8"}}),
        "list.safetensors": lambda: _described([1, 2]),
    }
