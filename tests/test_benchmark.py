"""The benchmark sets in every layout they are known to come in, from every kind of source."""

from __future__ import annotations

import functools
import hashlib
import tarfile
import threading
import zipfile
from collections.abc import Iterable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from derain.data import fetch
from derain.data import obtain as module
from derain.data.pack import Pack, write_pack
from derain.sources.benchmark import BENCHMARKS, Params, benchmark_pairs, find_benchmark
from derain.types import DataError, ParamsError

RAINY, CLEAN = 200, 50

obtain = functools.partial(module.obtain, published=BENCHMARKS["Rain100L"].published)


def touch(folder: Path, names: Iterable[str], value: int) -> None:
    """Tiny pictures; rainy and clean ones are told by their brightness."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(path)


def rain100(folder: Path, letter: str, train: Iterable[int] = range(1, 4), test: Iterable[int] = range(1, 3)) -> None:
    """As csdwren/PReNet publishes it: train flat, test with the rainy pictures a second time in a folder."""
    touch(folder, (f"train/RainTrain{letter}/rain-{n}.png" for n in train), RAINY)
    touch(folder, (f"train/RainTrain{letter}/norain-{n}.png" for n in train), CLEAN)
    touch(folder, (f"test/Rain100{letter}/rainy/rain-{n:03}.png" for n in test), RAINY)
    touch(folder, (f"test/Rain100{letter}/rain-{n:03}.png" for n in test), RAINY)
    touch(folder, (f"test/Rain100{letter}/norain-{n:03}.png" for n in test), CLEAN)


def yang(folder: Path, word: str) -> None:
    """As the authors' page has it since they changed the data."""
    for split in ("train", "test"):
        touch(folder, (f"rain_data_{split}_{word}/rain/X2/norain-{n}x2.png" for n in (1, 2)), RAINY)
        touch(folder, (f"rain_data_{split}_{word}/norain/norain-{n}.png" for n in (1, 2)), CLEAN)


def two_folders(folder: Path, root: str, rainy: str, clean: str, splits: tuple[str, str] = ("train", "test")) -> None:
    for split in splits:
        touch(folder, (f"{root}/{split}/{rainy}/{n}.png" for n in (1, 2)), RAINY)
        touch(folder, (f"{root}/{split}/{clean}/{n}.png" for n in (1, 2)), CLEAN)


def restormer(folder: Path, name: str) -> None:
    touch(folder, (f"test/{name}/input/{n}.png" for n in (1, 2)), RAINY)
    touch(folder, (f"test/{name}/target/{n}.png" for n in (1, 2)), CLEAN)


def rain800(folder: Path, suffix: str = "jpg") -> None:
    """The joined pictures of hezhangsprinter/ID-CGAN: clean half left, rainy half right."""
    rng = np.random.default_rng(0)
    for split, numbers in (("training", (1, 2, 10)), ("test_syn", (1, 2)), ("test_nature", (1,))):
        for number in numbers:
            picture = np.full((16, 32, 3), CLEAN, np.uint8)
            picture[:, 16:] = RAINY - 3 * rng.integers(0, 9, (16, 16, 1), dtype=np.uint8)
            path = folder / "rain" / split / f"{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path, quality=100)


def rain14000(folder: Path, train: str, test: str, rainy: str = "rainy_image", clean: str = "ground_truth") -> None:
    for place, numbers in ((train, (1, 2, 900)), (test, (901, 1000))):
        touch(folder, (f"{place}/{rainy}/{n}_{rain}.jpg" for n in numbers for rain in range(1, 15)), RAINY)
        touch(folder, (f"{place}/{clean}/{n}.jpg" for n in numbers), CLEAN)


def spa(folder: Path, root: str = "real_test_1000") -> None:
    touch(folder, (f"{root}/rain/{n:03}.png" for n in range(3)), RAINY)
    touch(folder, (f"{root}/gt/{n:03}gt.png" for n in range(3)), CLEAN)
    touch(folder, ["Real_Internet/rain/rain-001.png"], RAINY)


H = ("Rain100H", "rain-1 rain-2 rain-3", "rain-001 rain-002")
L = ("Rain100L", *H[1:])
CHANGED = ("norain-1x2 norain-2x2", "norain-1x2 norain-2x2")
PLAIN = ("1 2", "1 2")
MANY = (
    " ".join(f"{n}_{rain}" for n in (1, 2, 900) for rain in range(1, 15)),
    " ".join(f"{n}_{rain}" for n in (901, 1000) for rain in range(1, 15)),
)
LAYOUTS = {
    "PReNet H": (*H, lambda f: rain100(f, "H")),
    "PReNet L": (*L, lambda f: rain100(f, "L")),
    "PReNet, both sets": (*H, lambda f: [rain100(f, letter) for letter in "LH"]),  # type: ignore[func-returns-value]
    "authors H": ("Rain100H", *CHANGED, lambda f: yang(f, "Heavy")),
    "authors L, both sets": ("Rain100L", *CHANGED, lambda f: [yang(f, word) for word in ("Heavy", "Light")]),  # type: ignore[func-returns-value]
    "set and split": ("Rain100H", *PLAIN, lambda f: two_folders(f, "Rain100H", "rain", "norain")),
    "set and split, capitals": ("Rain100L", *PLAIN, lambda f: two_folders(f, "RAIN100L", "Rainy", "Clean")),
    "split and set": ("Rain100H", *PLAIN, lambda f: [two_folders(f, ".", "input", "target", (f"{s}/Rain100H",))  # type: ignore[arg-type, func-returns-value]
                                                     for s in ("train", "test")]),
    "other sets beside": ("Rain100H", *PLAIN, lambda f: [two_folders(f, name, "rain", "norain")  # type: ignore[func-returns-value]
                                                         for name in ("Rain100H", "Rain100L", "Rain800")]),
    "only splits": ("Rain100L", *PLAIN, lambda f: two_folders(f, ".", "input", "gt", ("training", "testing"))),
    "Restormer": ("Rain100H", None, "1 2", lambda f: [restormer(f, n) for n in ("Test100", "Rain100H", "Rain100L")]),  # type: ignore[func-returns-value]
    "ID-CGAN": ("Rain800", "1 2 10", "1 2", rain800),
    "ID-CGAN, png": ("Rain800", "1 2 10", "1 2", lambda f: rain800(f, "png")),
    "Rain800, two folders": ("Rain800", *PLAIN, lambda f: two_folders(f, "Rain800", "rain", "norain")),
    "Test100": ("Rain800", None, "1 2", lambda f: [restormer(f, n) for n in ("Rain100H", "Test100")]),  # type: ignore[func-returns-value]
    "DDN": ("Rain14000", *MANY, lambda f: rain14000(f, "rainy_image_dataset/training", "rainy_image_dataset/testing")),
    "DDN, spaces": ("Rain14000", *MANY, lambda f: rain14000(
        f, "rainy_image_dataset/training", "rainy_image_dataset/testing", "rainy image", "ground truth")),
    "DDN, undivided": ("Rain14000", *MANY, lambda f: rain14000(f, "rainy_image_dataset", "rainy_image_dataset")),
    "PReNet 14000": ("Rain14000", *MANY, lambda f: rain14000(f, "train/Rain12600", "test/Rain1400")),
    "PReNet 14000, nested": ("Rain14000", *MANY, lambda f: rain14000(f, "train/Rain12600/train", "test/Rain1400")),
    "SPANet": ("SPA-Data", None, "000 001 002", spa),
    "SPANet, nested": ("SPA-Data", None, "000 001 002", lambda f: spa(f, "Testing/real_test_1000/real_test_1000")),
    "SPA, Restormer's way": ("SPA-Data", None, "1 2", lambda f: restormer(f, "SPA-Data")),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("depth", ["", "some/where"])
def test_every_known_layout(tmp_path: Path, layout: str, depth: str) -> None:
    name, train, test, build = LAYOUTS[layout]
    build(tmp_path / "data" / depth)  # type: ignore[no-untyped-call]
    for split, names in (("train", train), ("test", test)):
        if names is None:
            continue
        pairs = benchmark_pairs(name, tmp_path / "data", "train" if split == "train" else "test")
        found = list(pairs)
        assert [pair.name for pair in found] == names.split()
        assert len(pairs) == len(found)
        for pair in found:
            assert abs(int(np.median(pair.rainy)) - RAINY) < 40
            assert abs(int(np.median(pair.clean)) - CLEAN) < 4


def test_the_splits_folder_itself_may_be_named(tmp_path: Path) -> None:
    rain100(tmp_path, "H")
    assert len(benchmark_pairs("Rain100H", tmp_path / "train/RainTrainH", "train")) == 3
    assert len(benchmark_pairs("rain100h", tmp_path / "test/Rain100H", "test")) == 2
    with pytest.raises(DataError, match="no test pictures below"):
        benchmark_pairs("Rain100H", tmp_path / "train/RainTrainH", "test")
    with pytest.raises(DataError, match="no train pictures below"):
        benchmark_pairs("Rain100H", tmp_path / "test/Rain100H", "train")


def test_no_set_is_taken_for_another(tmp_path: Path) -> None:
    rain100(tmp_path, "L")
    rain14000(tmp_path, "Rain14000/train", "Rain14000/test")
    spa(tmp_path)
    for name in ("Rain100H", "Rain800"):
        for split in ("train", "test"):
            with pytest.raises(DataError, match=f"{name}: no {split} pictures"):
                benchmark_pairs(name, tmp_path, "train" if split == "train" else "test")


def test_the_strict_release_lacks_rainy_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rain100(tmp_path, "H")
    touch(tmp_path, ["train/RainTrainH/norain-4.png"], CLEAN)
    assert len(benchmark_pairs("Rain100H", tmp_path, "train")) == 3
    assert "Rain100H train: 3 pairs, the published set has 1254" in capsys.readouterr().err
    rain100(tmp_path, "L")
    touch(tmp_path, ["train/RainTrainL/norain-4.png"], CLEAN)
    with pytest.raises(DataError, match="1 clean pictures"):
        benchmark_pairs("Rain100L", tmp_path, "train")


@pytest.mark.parametrize(
    ("count", "warning"), [(1254, ""), (1800, "546 of these pictures show scenes of the test set")]
)
def test_how_many_of_rain100h(tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, warning: str) -> None:
    (tmp_path / "RainTrainH").mkdir()
    for number in range(1, count + 1):
        (tmp_path / f"RainTrainH/rain-{number}.png").touch()
        (tmp_path / f"RainTrainH/norain-{number}.png").touch()
    assert len(benchmark_pairs("Rain100H", tmp_path, "train")) == count
    printed = capsys.readouterr()
    assert f"Rain100H train: {count} pairs in {tmp_path}" in printed.out.replace("\n", "")
    assert warning in printed.err
    assert bool(warning) == bool(printed.err)


def test_halves_that_look_exchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rain800(tmp_path, "png")
    benchmark_pairs("Rain800", tmp_path, "train")
    assert "look cleaner" not in capsys.readouterr().err
    for path in (tmp_path / "rain/training").iterdir():
        Image.fromarray(np.roll(np.array(Image.open(path)), 16, axis=1)).save(path)
    benchmark_pairs("Rain800", tmp_path, "train")
    assert "the right halves look cleaner than the others" in capsys.readouterr().err


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_is_missing_says_where_to_get_it(tmp_path: Path, name: str) -> None:
    benchmark = BENCHMARKS[name]
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError) as caught:
            benchmark_pairs(name, folder, "test")
        message = str(caught.value)
        assert benchmark.published in message
        assert benchmark.test.layout in message
        assert str(folder) in message
        assert len(message.splitlines()) == 2


def test_the_catalogue_says_what_the_papers_say() -> None:
    facts = {name: (b.train and b.train.pairs, b.test.pairs, b.stride, b.flip) for name, b in BENCHMARKS.items()}
    assert facts == {
        "Rain100H": (1254, 100, 80, False),
        "Rain100L": (200, 100, 80, True),
        "Rain800": (700, 100, 80, False),
        "Rain14000": (12_600, 1_400, 100, False),
        "SPA-Data": (None, 1_000, None, False),
    }


def test_names_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="'Rain1000' is not known; there are Rain100H, Rain100L, Rain800"):
        benchmark_pairs("Rain1000", tmp_path, "test")
    with pytest.raises(DataError, match="SPA-Data has no train split here"):
        benchmark_pairs("SPA-Data", tmp_path, "train")


def test_rain14000_stores_each_clean_picture_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    root = tmp_path / "rainy_image_dataset/testing"
    for number in (901, 902):
        for path in (root / "rainy_image" / f"{number}_{rain}.png" for rain in range(1, 15)):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)).save(path)
        (root / "ground_truth").mkdir(exist_ok=True)
        clean = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(clean).save(root / f"ground_truth/{number}.png")
    write_pack(tmp_path / "rain14000", "test", benchmark_pairs("Rain14000", tmp_path, "test"))
    pack = Pack.open(tmp_path / "rain14000", "test")
    assert len(pack) == 28
    assert np.array_equal(pack.pair(27).clean, clean)
    index = 28 * 5 * 8 + len("\0".join(pack.names))
    assert pack.path.stat().st_size - index == (28 + 2) * 4 * 6 * 3


# --- where a set comes from ---------------------------------------------------------------------------------------


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder))
    return archive


def tarred(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, "deep/folder")
    return archive


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rain100(tmp_path / "source", "L")
    return tmp_path / "source"


@pytest.mark.parametrize("pack_up", [zipped, tarred])
def test_an_archive_on_the_disk(tmp_path: Path, source: Path, pack_up: object) -> None:
    archive = pack_up(source, tmp_path / "RainL")  # type: ignore[operator]
    place = obtain("rain100l", archive=archive, cache=tmp_path / "cache")
    assert place.is_relative_to(tmp_path / "cache/rain100l")
    assert len(benchmark_pairs("Rain100L", place, "train")) == 3
    assert len(benchmark_pairs("Rain100L", place, "test")) == 2
    assert archive.exists()


def test_an_archive_is_unpacked_once(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(source, tmp_path / "RainL.zip")
    place = obtain("rain100l", archive=archive, cache=tmp_path / "cache")
    monkeypatch.setattr(module, "unpack", lambda *_: pytest.fail("unpacked again"))
    assert obtain("rain100l", archive=archive, cache=tmp_path / "cache") == place
    monkeypatch.undo()
    touch(source, ["train/RainTrainL/rain-4.png"], RAINY)
    touch(source, ["train/RainTrainL/norain-4.png"], CLEAN)
    zipped(source, archive)
    assert len(benchmark_pairs("Rain100L", obtain("rain100l", archive=archive, cache=tmp_path / "cache"), "train")) == 4


@pytest.fixture
def address(source: Path, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    zipped(source, tmp_path / "served/RainL.zip")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    listener = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{listener.server_port}/RainL.zip"
    listener.shutdown()
    listener.server_close()


def test_a_download(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checksum = hashlib.sha256((tmp_path / "served/RainL.zip").read_bytes()).hexdigest()
    place = obtain("rain100l", url=address, sha256=checksum, cache=tmp_path / "cache")
    assert len(benchmark_pairs("Rain100L", place, "test")) == 2
    assert [path.name for path in (tmp_path / "cache/rain100l").iterdir()] == [place.name]
    monkeypatch.setattr(module, "download", lambda *_: pytest.fail("fetched again"))
    assert obtain("rain100l", url=address, sha256=checksum, cache=tmp_path / "cache") == place


def test_a_download_from_google_drive(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def served(url: str, target: Path, sha256: str | None) -> None:
        asked.append(url)
        fetch.download(address, target, sha256)

    monkeypatch.setattr(module, "download", served)
    place = obtain("rain100l", gdrive="14BidJeG4nSNuFNFDf99K", cache=tmp_path / "cache")
    assert asked == [fetch.gdrive_url("14BidJeG4nSNuFNFDf99K")]
    assert len(benchmark_pairs("Rain100L", place, "train")) == 3


def test_a_folder_is_read_where_it_is(tmp_path: Path, source: Path) -> None:
    assert obtain("rain100l", folder=source, cache=tmp_path / "cache") == source
    assert not (tmp_path / "cache").exists()


def test_wrong_places(tmp_path: Path, source: Path) -> None:
    archive, cache = zipped(source, tmp_path / "RainL.zip"), tmp_path / "cache"
    for options, kind, message in (
        ({"url": "ftp://x/y.zip"}, ParamsError, "no http or https address"),
        ({"gdrive": "no id"}, ParamsError, "is no file id"),
        ({"folder": tmp_path / "none"}, DataError, r"folder .*none does not exist.*published at https://1drv"),
        (
            {"archive": tmp_path / "none.zip"},
            DataError,
            r"archive .*none\.zip is not a file.*published at",
        ),
        ({"archive": source}, DataError, "is not a file"),
        ({"archive": archive, "sha256": "0" * 64}, DataError, f"expected {'0' * 64}: correct the checksum"),
    ):
        with pytest.raises(kind, match=message):
            obtain("rain100l", **options, cache=cache)  # type: ignore[arg-type]
    assert not cache.exists() or not any(cache.rglob("*.png"))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "name exactly one of url, gdrive, archive, folder"),
        ({"folder": "here", "url": "http://x"}, "name exactly one of url, gdrive, archive, folder"),
        ({"folder": ""}, "at least 1 character"),
        ({"folder": "here", "sha256": "0" * 64}, "it cannot go with folder"),
        ({"archive": "a.zip", "sha256": "0" * 63}, "should match pattern"),
    ],
)
def test_an_entry_names_one_place_and_a_checksum_of_an_archive_only(entry: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Params.model_validate({"set": "Rain100L", **entry})


def test_a_damaged_archive_leaves_nothing_and_can_be_replaced(tmp_path: Path, source: Path) -> None:
    archive = zipped(source, tmp_path / "RainL.zip")
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged"):
        obtain("rain100l", archive=archive, cache=tmp_path / "cache")
    archive.write_bytes(content)
    place = obtain("rain100l", archive=archive, cache=tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache/rain100l").iterdir()] == [place.name]


def test_benchmarks_are_found_by_name() -> None:
    assert find_benchmark("spa-data") is BENCHMARKS["SPA-Data"]
