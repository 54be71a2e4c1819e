"""The pipeline's stages, one thin script each, run as `python -m stages.NAME` from the project's root.

A stage runs the `derain` that lies beside it: an experiment queued by `dvc exp run --queue` runs in a snapshot of the
project, where an installed package would be the workspace's later edit.
"""

import ctypes
import os
import select
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))


def _end_with_dvc() -> None:
    """Asks the kernel (Linux) to send SIGTERM when DVC is gone: DVC, when it is killed, leaves its stages running.

    Under DVC only: whoever starts a stage alone (nohup) may leave it alone.
    """
    if sys.platform != "linux" or "DVC_STAGE" not in os.environ:
        return
    set_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        _end_if_adopted(os.getpid(), os.getppid())
        return
    # torchrun, which has started this process, does not end with DVC.
    torchrun = os.getppid()
    dvc = _parent(torchrun)
    if _end_if_adopted(torchrun, dvc):
        threading.Thread(target=_end_with, args=[dvc], daemon=True).start()


def _end_if_adopted(started: int, parent: int) -> bool:
    """Ends this process if DVC had `started` that one, but is gone. Returns whether `parent` is DVC."""
    # DVC and what it starts are one process group; whoever has adopted a process since is of another one. A process
    # that leads a group of its own (under srun, on another host) was not started by DVC.
    if os.getpgid(started) == started:
        return False
    if os.getpgid(parent) != os.getpgid(started):
        sys.exit(143)
    return True


def _parent(process: int) -> int:
    """The PID of a process's parent."""
    # The name, in brackets, may hold anything.
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def _end_with(process: int) -> None:
    select.select([os.pidfd_open(process)], [], [])
    os.kill(os.getpid(), signal.SIGTERM)


_end_with_dvc()
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until `derain.console.run` takes over: Ctrl-C while a stage still imports is no traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
