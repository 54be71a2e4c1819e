"""One interface for rendered rain, benchmark sets, folders of pairs and unions of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from derain.data.pack import Pack
from derain.data.sets import pack_set
from derain.params import Data
from derain.types import DataError, ParamsError

DATA = Data(photos="builtin", test_share=0.2, rains_per_photo=1)


def write_pictures(folder: Path, names: list[str], seed: int, size: tuple[int, int] = (20, 30)) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)


@pytest.fixture
def rain100l(tmp_path: Path) -> Path:
    """Rain100L's layout: training pairs in one folder, test pairs in two."""
    root = tmp_path / "sets"
    write_pictures(root / "RainTrainL", [f"{kind}-{n}.png" for n in (1, 2) for kind in ("rain", "norain")], 0)
    write_pictures(root / "Rain100L", ["norain-001.png"], 1)
    write_pictures(root / "Rain100L" / "rainy", ["rain-001.png"], 2)
    return root


def test_rendered_sets_are_the_same_again_and_other_with_another_seed(tmp_path: Path) -> None:
    definition = {"source": "rendered", "kind": "light"}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        pack_set("light", definition, tmp_path / name, DATA, seed)
    train, test = ({name: Pack.open(tmp_path / name, split) for name in "abc"} for split in ("train", "test"))
    assert train["a"].sha256 == train["b"].sha256 != train["c"].sha256
    assert test["a"].sha256 == test["c"].sha256, "runs of different seeds are tested on the same pictures"
    assert not set(train["a"].names) & set(test["a"].names)


def test_photographs_of_ones_own(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [f"photo{n}.png" for n in range(12)], 0, (40, 50))
    own = Data(photos=str(tmp_path / "photos"), test_share=0.3, rains_per_photo=2)
    pack_set("heavy", {"source": "rendered", "kind": "heavy"}, tmp_path / "out", own, 0)
    train, test = (Pack.open(tmp_path / "out", split) for split in ("train", "test"))
    assert len(train) // 2 + len(test) == 12, "two rains a training photograph, one a test photograph"


def test_a_set_is_whole_or_as_it_was(tmp_path: Path) -> None:
    write_pictures(tmp_path / "rainy", ["1.png", "2.png"], 0)
    write_pictures(tmp_path / "clean", ["1.png", "2.png"], 1)
    good = {"rainy": str(tmp_path / "rainy"), "clean": str(tmp_path / "clean")}
    missing = {"rainy": str(tmp_path / "nowhere"), "clean": str(tmp_path / "clean")}
    folder = tmp_path / "sets/mine"
    (tmp_path / "rainy/2.png").write_bytes((tmp_path / "rainy/2.png").read_bytes()[:40])
    half = {
        "source": "pairs",
        "train": {"rainy": str(tmp_path / "clean"), "clean": str(tmp_path / "clean")},
        "test": good,
    }
    for broken in (half, {"source": "pairs", "train": good, "test": missing}):
        with pytest.raises(DataError):
            pack_set("mine", broken, folder, DATA, 0)
        assert not list(folder.parent.glob("*")), "no split appears where another one fails"
    write_pictures(tmp_path / "mended", ["1.png", "2.png"], 2)
    mended = {"rainy": str(tmp_path / "mended"), "clean": str(tmp_path / "clean")}
    pack_set("mine", {"source": "pairs", "train": mended, "test": mended}, folder, DATA, 0)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DataError):
        pack_set("mine", half, folder, DATA, 0)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    pack_set("mine", {"source": "pairs", "test": mended}, folder, DATA, 0)
    assert {path.name for path in folder.iterdir()} == {"test.pack", "test.json"}, "nothing of the old set stays"


def test_an_unknown_kind_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="heavy"):
        pack_set("x", {"source": "rendered", "kind": "snow"}, tmp_path / "out", DATA, 0)


def test_a_benchmark_set_brings_its_stride_and_its_flip(rain100l: Path, tmp_path: Path) -> None:
    definition = {"source": "benchmark", "set": "Rain100L", "folder": str(rain100l)}
    pack_set("rain100l", definition, tmp_path / "out", DATA, 0)
    train, test = (Pack.open(tmp_path / "out", split) for split in ("train", "test"))
    assert (len(train), train.stride, len(test)) == (4, 80, 1)
    np.testing.assert_array_equal(train.pair(1).rainy, train.pair(0).rainy[:, ::-1])


def test_pairs_may_have_one_split_only(rain100l: Path, tmp_path: Path) -> None:
    folders = {"rainy": str(rain100l / "Rain100L" / "rainy"), "clean": str(rain100l / "Rain100L")}
    pack_set("mine", {"source": "pairs", "test": folders}, tmp_path / "out", DATA, 0)
    assert len(Pack.open(tmp_path / "out", "test")) == 1
    with pytest.raises(DataError, match="train"):
        Pack.open(tmp_path / "out", "train")
    with pytest.raises(ParamsError, match=r"mine: .*[aA] train or a test split"):
        pack_set("mine", {"source": "pairs"}, tmp_path / "none", DATA, 0)


def test_a_union_holds_every_pair_of_its_parts(rain100l: Path, tmp_path: Path) -> None:
    """Sets whose pairs bear the same names, one of them doubled by its flip, of two strides."""
    parts: list[dict[str, Any]] = [
        {"source": "benchmark", "set": "Rain100L", "folder": str(rain100l)},
        {"source": "pairs", "train": {"rainy": str(rain100l / "RainTrainL"), "clean": str(rain100l / "RainTrainL")}},
    ]
    pack_set("mixed", {"source": "mix", "of": parts}, tmp_path / "mixed", DATA, 0)
    union = Pack.open(tmp_path / "mixed", "train")
    assert (len(union), union.stride) == (4 + 2, 80)
    expected = []
    for number, part in enumerate(parts):
        pack_set("part", part, tmp_path / str(number), DATA, 0)  # type: ignore[arg-type]
        pack = Pack.open(tmp_path / str(number), "train")
        expected += [pack.pair(index).rainy for index in range(len(pack))]
    for index, rainy in enumerate(expected):
        np.testing.assert_array_equal(union.pair(index).rainy, rainy)
