"""What is measured, apart from the tests: `python -m benchmarks` for all of it, `python -m benchmarks.NAME` for a part.

Ratios against a plain transcription of the published training script in the same run, interleaved with it, because
seconds differ from machine to machine and from minute to minute.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
"""The `derain` beside it, whatever is installed."""
