"""Faults of the disk at random writes, renames and syncs of stages and packing: no output is ever half of one.

Each fault is one call of the operating system that fails once, as a full, broken or read-only disk has it fail. After
it every file is whole, old or new; the stage says so in one line, or has not needed the call; nothing temporary is
left; and the stage run again gives the same bytes as if nothing had happened.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from unittest import mock

from derain.data.pack import Pack, write_pack
from derain.disk import paths
from derain.training import resume
from derain.types import DataError, DerainError, SpaceError
from stages import eval as eval_stage
from stages import kd_task, sc_mask
from torture._figures import Figures
from torture._folder import pairs, small_folder
from torture.numbers import SMALL

COUNT = 200

_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def run(seed: int, count: int) -> Figures:
    rng = random.Random(seed)  # noqa: S311 - no secret
    counts: Counter[str] = Counter()
    faults: list[str] = []
    with mock.patch.multiple(resume, SAVE_EVERY=0.0, SHARE=1e9), small_folder() as folder:
        folder.write_params(SMALL)
        folder.write_artifacts()
        works = [_Work(name, *work) for name, work in _WORKS.items()]
        for work in itertools.islice(itertools.cycle(works), count):
            number, code = rng.randrange(work.calls), rng.choice(_ERRORS)
            case = f"{work.name}, call {number}, {errno.errorcode[code]}"
            call, wrong = work.with_fault(number, code)
            counts[f"in {call}"] += 1
            faults += [f"{case} ({call}): {fault}" for fault in wrong]
    return Figures(counts, faults)


class _Work:
    """Something that writes files, done once without a fault."""

    def __init__(self, name: str, work: Callable[[], None], outputs: list[Path]) -> None:
        self.name, self._work, self._outputs = name, work, outputs
        self._clean_up()
        with _failing(None, 0) as calls:
            work()
        self.calls = len(calls)
        self._expected = self._files()

    def with_fault(self, number: int, code: int) -> tuple[str, list[str]]:
        """Does the work with one call failing; returns which it was, and what was wrong with how it ended."""
        self._clean_up()
        wrong: list[str] = []
        with _failing(number, code) as calls:
            try:
                self._work()
            except DerainError as error:
                wrong += _wrong_message(error, code)
            except OSError as error:
                wrong.append(f"ended with a traceback: {error!r}")
        wrong += [
            f"{name} is half of one" for name, content in self._files().items() if self._expected[name] != content
        ]
        wrong += [f"{file} was left" for file in Path().rglob(".*") if file.is_file()]
        self._work()
        if self._files() != self._expected:
            wrong.append("done again it gives other bytes")
        return calls[number], wrong

    def _clean_up(self) -> None:
        """As DVC does before it runs a stage: what the work writes is removed."""
        shutil.rmtree(paths.cache() / "states", ignore_errors=True)
        for path in self._outputs:
            shutil.rmtree(path, ignore_errors=True)
            if path.is_file():
                path.unlink()

    def _files(self) -> dict[Path, bytes]:
        """What is written so far, by its path."""
        files = [file for path in self._outputs for file in (path.rglob("*") if path.is_dir() else [path])]
        return {file: file.read_bytes() for file in files if file.is_file() and not file.name.startswith(".")}


def _wrong_message(error: DerainError, code: int) -> Iterator[str]:
    full = code in (errno.ENOSPC, errno.EDQUOT)
    if type(error) is not (SpaceError if full else DataError):
        yield f"ended with {type(error).__name__}: {error}"
    if "cannot be written" not in str(error) or (full and "are free" not in str(error)):
        yield f"does not say what is wrong: {error}"


@contextmanager
def _failing(number: int | None, code: int) -> Iterator[list[str]]:
    """Within it, the call of that number fails; yields the names of the calls."""
    calls: list[str] = []

    def or_fail(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any, **named: Any) -> Any:
            calls.append(name)
            if len(calls) - 1 == number:
                raise OSError(code, os.strerror(code))
            return call(*arguments, **named)

        return made

    fdopen = os.fdopen

    def opened(handle: int, mode: str) -> BinaryIO:
        file = cast(io.BufferedWriter, fdopen(handle, mode))
        wrapped = mock.MagicMock(wraps=file)
        wrapped.__enter__.return_value = wrapped
        wrapped.__exit__.side_effect = lambda *_: file.close()
        wrapped.write.side_effect = or_fail("write", file.write)
        wrapped.flush.side_effect = or_fail("flush", file.flush)
        return cast(BinaryIO, wrapped)

    with (
        mock.patch.object(os, "fdopen", opened),
        mock.patch.object(os, "fsync", or_fail("fsync", os.fsync)),
        mock.patch.object(tempfile, "mkstemp", or_fail("open", tempfile.mkstemp)),
        mock.patch.object(Path, "replace", or_fail("rename", Path.replace)),
        mock.patch.object(Path, "chmod", or_fail("chmod", Path.chmod)),
    ):
        yield calls


def _pack() -> None:
    write_pack(_PACKED, "train", pairs(5))
    Pack.open(_PACKED, "train")


def _test() -> None:
    with mock.patch.object(sys, "argv", ["stages.eval", "light"]):
        eval_stage.main()


_PACKED = Path("packed")
_WORKS: dict[str, tuple[Callable[[], None], list[Path]]] = {
    "packing": (_pack, [_PACKED]),
    "training": (lambda: kd_task.main("1"), [paths.model("task1"), paths.trace("task1"), paths.loss("task1")]),
    "consolidating": (lambda: sc_mask.main("1"), [paths.mask("task1"), paths.memory("task1")]),
    "testing": (_test, [paths.RESULTS / "light"]),
}
"""What writes, by name, and what it writes."""
