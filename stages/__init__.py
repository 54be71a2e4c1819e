"""The pipeline's stages, one thin script each, run as `python -m stages.NAME` from the project's root.

A stage runs the `derain` that lies beside it: an experiment queued by `dvc exp run --queue` runs in a snapshot of the
project, where an installed package would be the workspace's later edit.
"""

import ctypes
import os
import signal
import sys
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
    # DVC and its stages are one process group; whoever has adopted a stage since is of another one. A process that
    # leads a group of its own (a worker of torchrun) was not started by DVC.
    if os.getpgrp() != os.getpid() and os.getpgid(os.getppid()) != os.getpgrp():
        sys.exit(143)


_end_with_dvc()
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until `derain.console.run` takes over: Ctrl-C while a stage still imports is no traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
