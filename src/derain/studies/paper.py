"""The paper's own numbers: Xiao et al., "Improving De-raining Generalization via Neural Reorganization", ICCV 2021.

PSNR (dB) and SSIM of PReNet by what it was trained on and by test set, as printed in Tables 1 to 5. The paper does not
name its protocol; its numbers lie beside those that PReNet's authors took on the Y channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from derain.params import Entry, Params, parts
from derain.studies.rows import Cell

SETS = ("Rain100H", "Rain800", "Rain14000", "Rain100L", "SPA-Data")


class Printed(NamedTuple):
    """A table of the paper: its rows by what the network was trained on."""

    title: str
    rows: Mapping[str, Mapping[str, Cell]]


NOTES = {
    "a": "A misprint, almost surely: these are the very numbers of NR on Rain100L, and far above what training on "
    "Rain14000 itself gives.",
    "b": "Far above what the other two sets alone give on Rain100L (28.90 and 29.33); plausible, but unverified.",
    "c": "0.8 dB below what PReNet’s authors publish for this set (32.60 dB / 0.946).",
    "d": "The text calls SI the worst on SPA-Data; by PSNR it is Mix (34.85 against 34.91).",
    "e": "Table 5 gives another number for NR on SPA-Data, 32.97 dB / 0.956.",
    "f": "Table 1 gives 35.60 dB / 0.959 for NR on SPA-Data, in the other order; the network may be another one.",
}

TABLE_1 = Printed(
    "Table 1: the four sets in a row, or mixed",
    {
        "SI": {
            "Rain100H": Cell(18.01, 0.611),
            "Rain800": Cell(23.70, 0.760),
            "Rain14000": Cell(28.48, 0.865),
            "Rain100L": Cell(37.44, 0.978),
            "SPA-Data": Cell(34.91, 0.951, "d"),
        },
        "Mix": {
            "Rain100H": Cell(26.74, 0.861),
            "Rain800": Cell(23.74, 0.843),
            "Rain14000": Cell(30.98, 0.927),
            "Rain100L": Cell(31.53, 0.948),
            "SPA-Data": Cell(34.85, 0.955, "d"),
        },
        "NR": {
            "Rain100H": Cell(25.93, 0.851),
            "Rain800": Cell(24.53, 0.816),
            "Rain14000": Cell(30.42, 0.907),
            "Rain100L": Cell(36.34, 0.973),
            "SPA-Data": Cell(35.60, 0.959, "e"),
        },
    },
)

TABLE_2 = Printed(
    "Table 2: one set alone",
    {
        "Rain100H alone": {
            "Rain100H": Cell(29.37, 0.897),
            "Rain100L": Cell(34.71, 0.969, "b"),
            "Rain14000": Cell(28.39, 0.878),
            "Rain800": Cell(22.45, 0.810),
            "SPA-Data": Cell(34.50, 0.952),
        },
        "Rain800 alone": {
            "Rain100H": Cell(15.78, 0.475),
            "Rain100L": Cell(29.33, 0.905),
            "Rain14000": Cell(36.34, 0.973, "a"),
            "Rain800": Cell(25.86, 0.871),
            "SPA-Data": Cell(33.71, 0.957),
        },
        "Rain14000 alone": {
            "Rain100H": Cell(15.16, 0.430),
            "Rain100L": Cell(28.90, 0.897),
            "Rain14000": Cell(31.78, 0.924, "c"),
            "Rain800": Cell(23.03, 0.807),
            "SPA-Data": Cell(33.70, 0.952),
        },
        "Rain100L alone": {
            "Rain100H": Cell(17.83, 0.611),
            "Rain100L": Cell(37.16, 0.977),
            "Rain14000": Cell(27.60, 0.851),
            "Rain800": Cell(23.58, 0.755),
            "SPA-Data": Cell(34.99, 0.953),
        },
        "NR": TABLE_1.rows["NR"],
    },
)

TABLE_3 = Printed(
    "Table 3: what each part gives on unseen rain",
    {
        "Without both (SI)": {"SPA-Data": Cell(34.91, 0.951)},
        "Without SC": {"SPA-Data": Cell(35.20, 0.957)},
        "Without KD": {"SPA-Data": Cell(35.14, 0.957)},
        "NR": {"SPA-Data": Cell(35.60, 0.959, "e")},
    },
)

TABLE_4 = Printed(
    "Table 4: unseen rain after each task of NR",
    {
        "after Rain100H": {"SPA-Data": Cell(34.50, 0.952)},
        "after Rain800": {"SPA-Data": Cell(34.75, 0.957)},
        "after Rain14000": {"SPA-Data": Cell(35.21, 0.957)},
        "after Rain100L": {"SPA-Data": Cell(35.60, 0.959, "e")},
    },
)

TABLE_5 = Printed(
    "Table 5: the order Rain100H, Rain100L, Rain14000, Rain800",
    {
        "Syn2Real": {"SPA-Data": Cell(32.87, 0.954)},
        "NR": {"SPA-Data": Cell(32.97, 0.956, "f")},
    },
)

TABLES = (TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5)


def comparable(params: Params) -> dict[str, str]:
    """The test sets that the paper tests on too, by our name, where all training is on the paper's sets; else none.

    Rendered rain and a user's own pairs are no benchmark, whatever their names are.
    """
    datasets = params.content["datasets"]
    if not all(_paper_sets(datasets[task.dataset]) for task in params.tasks):
        return {}
    tests = {test: _paper_sets(datasets[test]) for test in params.tests}
    return {test: names[0] for test, names in tests.items() if len(names) == 1}


def _paper_sets(entry: Entry) -> list[str]:
    """The paper's sets that a data set is made of; empty where any part is something else."""
    known = {name.casefold(): name for name in SETS}
    names = [known.get(str(part.get("set")).casefold()) for part in parts(entry)]
    return [name for name in names if name] if all(names) else []
