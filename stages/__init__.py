"""The pipeline's stages, one thin script each, run as `python -m stages.NAME` from the project's root.

A stage runs the `derain` that lies beside it: an experiment queued by `dvc exp run --queue` runs in a snapshot of the
project, where an installed package would be the workspace's later edit.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
