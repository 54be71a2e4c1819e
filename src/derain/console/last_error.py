"""What went wrong last, for those who run this unattended: last_error.json.

It lies in $DERAIN_CACHE (~/.cache/derain), where a stage of `dvc exp run --temp` or of the queue leaves it too, or
where $DERAIN_LAST_ERROR says. What went wrong with a command is removed when the same command ends well in the same
folder.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from derain.disk import atomic, paths


def path() -> Path:
    """Where the file lies."""
    return Path(os.environ.get("DERAIN_LAST_ERROR") or paths.cache() / "last_error.json")


def note(kind: str, message: str, exit_code: int) -> None:
    """Writes what went wrong; a failure to do so is passed over, as the error itself is what counts.

    Args:
        kind: the class of the error.
        message: as it was printed.
        exit_code: of this process.
    """
    with suppress(Exception):
        content = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            **_whose(),
            "stage": os.environ.get("DVC_STAGE"),
            "kind": kind,
            "message": message,
            "exit_code": exit_code,
            "versions": {"derain": version("derain"), "python": platform.python_version()},
        }
        atomic.write_json(path(), content)


def forget() -> None:
    """Removes what went wrong with this command in this folder before; nothing else's."""
    with suppress(Exception):  # no such file, not ours, or not to be removed
        content = json.loads(path().read_bytes())
        if _whose().items() <= content.items():
            path().unlink()


def _whose() -> dict[str, Any]:
    # What `python -m stages.download heavy` sees of itself is the path of the script.
    return {"command": [Path(sys.argv[0]).stem, *sys.argv[1:]], "folder": str(Path.cwd())}
