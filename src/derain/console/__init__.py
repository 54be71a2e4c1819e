"""The only module that prints: messages, tables and progress, by rich."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, NoReturn, TypeVar

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from derain.console import last_error
from derain.types import DerainError, SpaceError, ran_out_of_memory

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

T = TypeVar("T")


def say(text: str) -> None:
    """Prints one line for the user; markup is not interpreted."""
    out.print(text, markup=False)


def warn(text: str) -> None:
    """Prints a warning on standard error."""
    err.print(f"warning: {text}", markup=False, style="yellow")


def in_one_line(error: Exception) -> str:
    """What kind of error it is, and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def fail(error: DerainError) -> int:
    """Prints the error's message on standard error and returns its exit code."""
    err.print(f"error: {error}", markup=False, style="bold red")
    return error.exit_code


class Terminated(KeyboardInterrupt):
    """SIGTERM has come. What tidies up at KeyboardInterrupt tidies up then too."""


def run(main: Callable[[], Any]) -> NoReturn:
    """Runs a stage and ends the process: a DerainError becomes its message and exit code, never a traceback.

    A signal that asks to stop unwinds it: SIGINT ends in exit code 130, SIGTERM in 143.
    """
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = code_of(main, "run the same command again to continue")
    except Terminated:  # it came while an error was being told
        code = 143
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # nothing is left that could be stopped
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the second that torch takes to tidy up: killed in it, a stage that is done would have to start again.
    os._exit(code)


def code_of(main: Callable[[], Any], if_interrupted: str) -> int:
    """The exit code of a stage or command; says what went wrong, there and in last_error.json.

    A fault of the program itself goes on as it is, with its traceback.
    """
    try:
        code = int(_within_memory(main) or 0)
    except DerainError as error:
        code = fail(error)
        _note(type(error).__name__, str(error), code)
        return code
    except KeyboardInterrupt as interruption:
        terminated = isinstance(interruption, Terminated)
        code, how = (143, "terminated") if terminated else (130, "interrupted")
        err.print(f"{how}; {if_interrupted}", markup=False)
        _note(type(interruption).__name__, how, code)
        return code
    except Exception as error:
        _note(type(error).__name__, str(error), 1)
        raise
    if code == 0:
        last_error.forget()
    else:
        _note("SomeFailed", "some of the inputs failed; what was printed names them", code)
    return code


def _note(kind: str, message: str, exit_code: int) -> None:
    if not err.quiet:  # of several processes one says what went wrong
        last_error.note(kind, message, exit_code)


def _within_memory(main: Callable[[], Any]) -> Any:
    try:
        return main()
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        detail = f" ({str(error).splitlines()[0][:200]})" if str(error) else ""
        raise SpaceError(f"memory ran out{detail}. Close other programs, or choose less at once.") from None


def _terminate(*_: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # DVC's end sends it again
    raise Terminated


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yields the items under a progress bar with the time left; on a pipe prints a plain line now and then."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    if not out.is_terminal:
        yield from _plain(items, what, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True) as progress:
        yield from progress.track(items, total=total, description=what)


def _plain(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    marks = {max(1, round(total * part / 4)) for part in (1, 2, 3, 4)} if total else set()
    for done, item in enumerate(items, 1):
        yield item
        if done in marks:
            say(f"{what}: {done}/{total}")


def table(title: str, columns: list[str], rows: Iterable[list[str]], caption: str = "") -> None:
    """Prints a table; the first column is left-aligned, all others right-aligned. It is never cut to fit."""
    grid = Table(title=Text(title), title_justify="left")
    for i, column in enumerate(columns):
        grid.add_column(Text(column), justify="left" if i == 0 else "right")
    for row in rows:
        grid.add_row(*map(Text, row))
    # On a pipe rich takes 80 columns and would cut numbers short.
    whole = Measurement.get(out, out.options.update(width=1000), grid).maximum
    out.print(Segments(out.render(grid, out.options.update(width=whole))), end="")
    if caption:
        say(caption)
