"""Torture: what a long training meets (kills, signals, stale states, numbers that are none, ...), from a seed.

`python -m torture` runs every part, `python -m torture kills --seed 1 --count 20` one of them, longer or shorter. A
part is a file of this folder without an underscore, with a docstring, `COUNT`, how often by default, and
`run(seed, count) -> Figures`. Each works in a temporary folder of its own.
"""

import stages  # noqa: F401 - puts the src beside it first on the path
