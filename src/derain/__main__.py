"""`python -m derain` is the `derain` command."""

import sys

from derain.cli import main

sys.exit(main())
