"""What an interrupted stage goes on from: its state so far, under a fingerprint of all that decides its result.

States lie outside a stage's outputs, which DVC removes before it runs a stage, and outside the folder of an experiment,
so that `dvc repro`, `dvc exp run`, `--temp` and the queue find one another's. Another parameter, input, code, library,
device, precision or number of threads is another fingerprint: a state is never met by what it does not belong to.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

from derain.compute import distributed
from derain.console import say, warn
from derain.disk import atomic, paths
from derain.types import BusyError, DataError, ParamsError

SAVE_EVERY = 10.0
"""Seconds between two saves ($DERAIN_SAVE_EVERY names others), longer where saving would cost more than `SHARE`."""
SHARE = 0.01
"""The share of the time that saving may take."""
KEPT_DAYS = 14
"""A state that nothing went on from for so long is removed."""
KEPT_STATES = 50
"""So many states are kept; then the oldest go."""
PATIENCE = 10.0
"""Seconds to wait for another process to let a state go: one that was asked to stop needs a step for it."""

_LIBRARIES = ("torch", "numpy", "scikit-image", "pillow")
_STATE, _LOCK, _FINISHED = "state", "lock", "finished"


class State:
    """The state of a computation that is done in one go: nothing is kept.

    Attributes:
        asked: the signal that has asked to stop; it is obeyed when a step is done.
    """

    asked: signal.Signals | None = None

    def load(self) -> bytes | None:
        """What was kept last, or None where there is nothing to go on from."""
        return None

    def step_done(self, content: Callable[[], bytes]) -> None:  # noqa: ARG002 - nothing is kept
        """Called after each step; `content` gives what is to be kept now, and is asked where a save is due.

        Raises:
            KeyboardInterrupt: a signal has asked to stop, and the state is kept.
        """
        if self.asked is not None:
            raise KeyboardInterrupt


NOT_KEPT = State()


class KeptState(State):
    """A state in a folder of its own; see `kept`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / _STATE
        (folder / _FINISHED).unlink(missing_ok=True)
        self._every = _save_every()
        self._saved_at = time.monotonic()
        self._pause = self._every

    def load(self) -> bytes | None:
        try:
            stored = self.path.read_bytes()
        except OSError:
            return None
        digest, content = stored[:32], stored[32:]
        if hashlib.sha256(content).digest() != digest:
            warn(f"{self.path} is damaged and not used: this stage starts from the beginning")
            return None
        return content

    def step_done(self, content: Callable[[], bytes]) -> None:
        start = time.monotonic()
        if self.asked is None and start - self._saved_at < self._pause:
            return
        self.save(content())
        self._saved_at = time.monotonic()
        self._pause = max(self._every, (self._saved_at - start) / SHARE)
        super().step_done(content)

    def save(self, content: bytes) -> None:
        """Keeps the content on disk, whole or not at all; where that fails, warns and leaves what was kept before."""
        try:
            atomic.write_atomically(self.path, hashlib.sha256(content).digest() + content)
        except DataError as error:  # a full disk must not end what does not need it
            warn(f"{error} An interrupted stage would go on from an older state.")

    def finish(self) -> None:
        """Leaves the state to be removed by the next computation that keeps one.

        DVC has not recorded the result yet: killed in that moment, it has the stage run again.
        """
        if self.path.exists():
            (self.path.parent / _FINISHED).touch()
        else:
            shutil.rmtree(self.path.parent, ignore_errors=True)


class SharedState(State):
    """What several processes go on from: the main one's own state, kept by it alone and loaded by all.

    They stop after the same step, whichever of them a signal has reached.
    """

    def __init__(self, own: State) -> None:
        self._own = own

    def load(self) -> bytes | None:
        return distributed.same_from_main(self._own.load())

    def step_done(self, content: Callable[[], bytes]) -> None:
        asked = distributed.greatest(self._own.asked or 0)
        self._own.asked = signal.Signals(asked) if asked else None
        self._own.step_done(content)


def _save_every() -> float:
    given = os.environ.get("DERAIN_SAVE_EVERY", SAVE_EVERY)
    try:
        return float(given)
    except ValueError:
        raise ParamsError(f"$DERAIN_SAVE_EVERY: {given!r} is not allowed. It must be a number of seconds.") from None


def fingerprint(facts: Mapping[str, Any]) -> str:
    """64 hexadecimal digits of `facts` (JSON values), of the project's code that is loaded, and of its libraries."""
    known = {
        "facts": facts,
        "code": _code(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _code() -> dict[str, str]:
    """SHA-256 by name of each loaded module of the project, with the script that runs."""
    digests = {}
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        if spec and spec.has_location and spec.name.split(".")[0] in {"derain", "stages"}:
            digests[spec.name] = hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
    return digests


@contextmanager
def kept(facts: Mapping[str, Any], what: str) -> Iterator[State]:
    """The state of the computation that `facts` decide, for this process alone while the block lasts.

    The block goes on from it and writes the result. When it ends well the state has served, and the next computation
    that keeps one removes it; when it ends otherwise, the state stays for the next try. SIGTERM and SIGINT are held
    back until a step is done and its state kept; a second SIGINT is not.

    Of several processes the main one keeps the state, and all go on from it.

    Args:
        facts: all that decides the result, besides code and libraries; JSON values.
        what: names the computation in messages.

    Raises:
        BusyError: another computation has this state.
        DataError: the processes of this one differ in what decides the result.
    """
    digest = fingerprint(facts)
    distributed.check_alike(digest, what)
    own = _kept_by_this_process(digest, what) if distributed.is_main() else _kept_by_the_main_one()
    with own as state:
        yield SharedState(state) if distributed.size() > 1 else state


@contextmanager
def _kept_by_the_main_one() -> Iterator[State]:
    state = State()
    with _held_back(state):
        yield state


@contextmanager
def _kept_by_this_process(digest: str, what: str) -> Iterator[State]:
    folder = paths.cache() / "states" / digest
    try:
        lock = _lock(folder, what)
        _clean(folder.parent)
    except OSError as error:
        warn(f"{folder.parent}: {error.strerror}. {what} cannot go on from where it is if it is interrupted.")
        yield State()
        return
    try:
        state = KeptState(folder)
        with _held_back(state):
            yield state
            if state.asked is None:
                state.finish()
    finally:
        os.close(lock)


@contextmanager
def _held_back(state: State) -> Iterator[None]:
    """Notes the first signal that asks to stop in `state.asked`, and delivers it when the block has ended."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def ask(number: int, _: FrameType | None) -> None:
        if number == state.asked == signal.SIGINT:  # Ctrl-C twice; SIGTERM may come from DVC's end and its killer
            raise KeyboardInterrupt
        state.asked = signal.Signals(number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, ask)
    try:
        yield
    except KeyboardInterrupt:
        if state.asked is None:
            raise
    finally:
        _restore(before)
    if state.asked is not None:
        signal.raise_signal(state.asked)


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _lock(folder: Path, what: str) -> int:
    """The folder's lock file, open and locked; the kernel unlocks it when the process ends, however it ends."""
    deadline = time.monotonic() + PATIENCE
    while (lock := _try_lock(folder)) is None:
        if time.monotonic() > deadline:
            owner = (folder / _LOCK).read_text() or "unknown"
            raise BusyError(f"{what}: another process (PID {owner}) is at work on it. Wait for its end, or stop it.")
        time.sleep(0.1)
    os.truncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _try_lock(folder: Path) -> int | None:
    """The open lock file, locked, or None where another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The owner before may have removed the folder since it was opened: that file locks nothing any more.
        if os.path.samestat(os.fstat(lock), path.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _clean(states: Path) -> None:
    """Removes states that have served, are too old or too many, and are nobody's now."""
    by_age = sorted((folder for folder in states.iterdir() if folder.is_dir()), key=_changed, reverse=True)
    for number, folder in enumerate(by_age):
        served = (folder / _FINISHED).exists()
        if not served and number < KEPT_STATES and time.time() - _changed(folder) < KEPT_DAYS * 86400:
            continue
        lock = _try_lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
            if not served:
                say(f"removed the state {folder}: nothing went on from it")


def _changed(folder: Path) -> float:
    """When the folder's state was last kept, in seconds since the epoch."""
    try:
        return max((file.stat().st_mtime for file in folder.iterdir()), default=folder.stat().st_mtime)
    except OSError:  # removed meanwhile
        return time.time()
