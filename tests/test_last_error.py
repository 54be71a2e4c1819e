"""What those find who run this unattended: exit codes, and last_error.json."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from derain import console, types
from derain.console import last_error
from derain.disk import atomic
from derain.types import BusyError, DataError, DerainError, NumericError, ParamsError, SpaceError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    called(monkeypatch, "heavy")
    return tmp_path / "cache" / "last_error.json"


def called(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As `python -m stages.download NAME` finds itself called."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/stages/download.py", name])


def failing(error: BaseException) -> Callable[[], Any]:
    def main() -> None:
        raise error

    return main


CODES = {
    ParamsError("wrong"): 2,
    NumericError("wrong"): 4,
    DataError("wrong"): 5,
    SpaceError("wrong"): 6,
    MemoryError(): 6,
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"): 6,
    BusyError("wrong"): 75,
    KeyboardInterrupt(): 130,
    console.Terminated(): 143,
}


@pytest.mark.parametrize("error", CODES, ids=repr)
def test_what_went_wrong_is_noted_with_its_code(file: Path, error: BaseException, monkeypatch: Any) -> None:
    monkeypatch.setenv("DVC_STAGE", "download@heavy")
    assert console.code_of(failing(error), "again") == CODES[error]
    noted = json.loads(file.read_text())
    assert noted["exit_code"] == CODES[error]
    assert noted["command"] == ["download", "heavy"]
    assert (noted["folder"], noted["stage"]) == (str(Path.cwd()), "download@heavy")
    assert noted["message"]


def test_a_fault_of_the_program_keeps_its_traceback_and_is_noted(file: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        console.code_of(failing(ZeroDivisionError("by zero")), "again")
    assert json.loads(file.read_text())["kind"] == "ZeroDivisionError"
    assert json.loads(file.read_text())["exit_code"] == 1


def test_it_goes_when_the_same_command_ends_well_and_stays_when_another_does(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.code_of(failing(DataError("wrong")), "again")
    called(monkeypatch, "light")
    assert console.code_of(lambda: None, "again") == 0
    assert file.exists()
    called(monkeypatch, "heavy")
    monkeypatch.chdir(file.parent)
    console.code_of(lambda: None, "again")
    assert file.exists(), "another folder's"
    monkeypatch.chdir(file.parent.parent)
    console.code_of(lambda: None, "again")
    assert not file.exists()


def test_some_pictures_that_failed_are_noted_too(file: Path) -> None:
    assert console.code_of(lambda: 3, "again") == 3
    assert json.loads(file.read_text())["exit_code"] == 3


def test_another_place_may_be_named(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERAIN_LAST_ERROR", str(tmp_path / "elsewhere.json"))
    console.code_of(failing(DataError("wrong")), "again")
    assert (tmp_path / "elsewhere.json").exists()
    assert not file.exists()


def test_where_it_cannot_be_written_the_error_is_told_all_the_same(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.parent.write_text("no folder")
    assert console.code_of(failing(DataError("the pack is damaged")), "again") == 5
    assert "the pack is damaged" in capsys.readouterr().err
    last_error.forget()


def test_the_table_of_the_documentation_has_every_code() -> None:
    table = (ROOT / "docs/reliability.md").read_text().partition("## Exit codes")[2].partition("```")[0]
    listed = {int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", table, re.M) for code in cell.split(",")}
    errors = {kind for kind in vars(types).values() if isinstance(kind, type) and issubclass(kind, DerainError)}
    assert listed == {kind.exit_code for kind in errors} | {0, 1, 3, 130, 143}


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    (tmp_path / ".scores.json.abcdefgh").write_text("half")
    (tmp_path / ".other.json.abcdefgh").write_text("half")
    with atomic.new_file(tmp_path / "scores.json") as first:
        first.write(b"first")
        atomic.write_atomically(tmp_path / "scores.json", b"second")
        assert (tmp_path / "scores.json").read_bytes() == b"second"
    assert (tmp_path / "scores.json").read_bytes() == b"first"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.json.abcdefgh", "scores.json"]


def test_a_full_disk_is_noticed_before(tmp_path: Path) -> None:
    atomic.check_space(tmp_path / "new/set.zip", 1)
    with pytest.raises(SpaceError, match=r"set\.zip needs 1,000,000,000,000,000,000 bytes, [\d,]+ are free"):
        atomic.check_space(tmp_path / "new/set.zip", 10**18)


def test_a_signal_that_comes_while_an_error_is_told_is_no_traceback() -> None:
    code = """
import os, signal
from derain import console
from derain.console import last_error
from derain.types import DataError

def main():
    raise DataError("rotten")

last_error.note = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
console.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert done.stderr == "error: rotten\n"
