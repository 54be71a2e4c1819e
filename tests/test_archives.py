"""Unpacking: true archives come out whole, hostile and damaged ones leave nothing."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain.data import archives
from derain.data.archives import unpack
from derain.types import DataError

TREE = {
    "RainTrainH/rain-1.png": b"one",
    "RainTrainH/norain-1.png": b"",
    "RainTrainH/rain-2.PNG": bytes(range(256)) * 20,
    "readme.txt": b"by hand",
}


def zip_bytes(members: dict[str, bytes] | list[tuple[str | zipfile.ZipInfo, bytes]], compression: int = 8) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data)
    return content.getvalue()


def tar_bytes(members: list[tuple[tarfile.TarInfo | str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=form) as archive:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            if info.isreg():
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


KINDS: dict[str, Callable[[], bytes]] = {
    "zip": lambda: zip_bytes(TREE),
    "stored zip": lambda: zip_bytes(TREE, zipfile.ZIP_STORED),
    "tar": lambda: tar_bytes(list(TREE.items())),
    "gnu tar": lambda: tar_bytes(list(TREE.items()), tarfile.GNU_FORMAT),
    "tar.gz": lambda: gzip.compress(tar_bytes(list(TREE.items()))),
    "tar.bz2": lambda: bz2.compress(tar_bytes(list(TREE.items()))),
    "tar.xz": lambda: lzma.compress(tar_bytes(list(TREE.items()))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_true_archives_come_out_whole(tmp_path: Path, kind: str) -> None:
    # The name says nothing: rain_data_test_Heavy.gz is a tar archive.
    (tmp_path / "set.gz").write_bytes(KINDS[kind]())
    unpack(tmp_path / "set.gz", tmp_path / "sets" / "out")
    assert tree(tmp_path / "sets" / "out") == TREE
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["out"]


def test_folders_as_members(tmp_path: Path) -> None:
    """As `tar -c .` and `zip -r` write them."""
    folders = [tarfile.TarInfo(name) for name in (".", "./RainTrainH")]
    for info in folders:
        info.type = tarfile.DIRTYPE
    members: list[tuple[tarfile.TarInfo | str, bytes]] = [(info, b"") for info in folders]
    members += [(f"./{name}", content) for name, content in TREE.items()]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    unpack(tmp_path / "a.tar", tmp_path / "tar")
    (tmp_path / "a.zip").write_bytes(zip_bytes([("RainTrainH/", b""), *TREE.items()]))
    unpack(tmp_path / "a.zip", tmp_path / "zip")
    assert tree(tmp_path / "tar") == tree(tmp_path / "zip") == TREE


def test_other_kinds_of_file_are_passed_over(tmp_path: Path) -> None:
    extra = {"__MACOSX/a/._1.png": b"x", ".hidden/1.png": b"x", "Thumbs.db": b"x", "run.sh": b"x", "nested.zip": b"x"}
    (tmp_path / "a.zip").write_bytes(zip_bytes(TREE | extra))
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == TREE


def tar_member(name: str, kind: bytes, target: str = "/etc/passwd") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return tar_bytes([("a.png", b"1"), (info, b"")])


def zip_member(name: str, mode: int = 0) -> bytes:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return zip_bytes([("a.png", b"1"), (info, b"/etc/passwd")])


def patched(content: bytes, old: bytes, new: bytes, count: int = -1) -> bytes:
    assert old in content
    assert len(old) == len(new)
    return content.replace(old, new, count)


def encrypted_zip() -> bytes:
    content = bytearray(zip_bytes({"a.png": b"secret"}))
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + flags] |= 1
    return bytes(content)


def unknown_method() -> bytes:
    content = bytearray(zip_bytes({"a.png": b"1"}, zipfile.ZIP_STORED))
    for header, method in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(header) + method] = 9  # Deflate64
    return bytes(content)


def overlapping_zip() -> bytes:
    """A thousand names for one compressed member, as in the bombs of 2019 that need no nesting."""
    content = zip_bytes({"00000.png": bytes(2**20)})
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entry, body = content[start:end], content[:start]
    directory = b"".join(patched(entry, b"00000.png", b"%05d.png" % number) for number in range(1000))
    return body + directory + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1000, 1000, len(directory), len(body), 0)


def oversized_header() -> bytes:
    """A tar extended header that claims 1 GiB, compressed 1:1000; tarfile would read it into memory."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**30
    return gzip.compress(tar_bytes([("a.png", b"1")])[:1024] + info.tobuf(tarfile.USTAR_FORMAT) + bytes(2**26))


def negative_size() -> bytes:
    """CVE-2025-8194: a header of negative size sent tarfile backwards for ever."""
    content = bytearray(tar_bytes([("a.png", b"1"), ("b.png", b"2")]))
    content[1024 + 124 : 1024 + 136] = b"\xff" * 10 + b"\xfe\x00"
    content[1024 + 148 : 1024 + 156] = b" " * 8
    content[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(content[1024:1536])
    return bytes(content)


def sparse_member() -> bytes:
    info = tarfile.TarInfo("a.png")
    info.type = tarfile.GNUTYPE_SPARSE
    return tar_bytes([("b.png", b"1"), (info, b"")], tarfile.GNU_FORMAT)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "zip ..": (lambda: zip_member("../evil.png"), "points outside"),
    "zip inner ..": (lambda: zip_member("a/../../evil.png"), "points outside"),
    "zip .. of no picture": (lambda: zip_member("../evil.sh"), "points outside"),
    "zip backslash ..": (lambda: zip_member("..\\evil.png"), "points outside"),
    "zip absolute": (lambda: zip_member("/evil.png"), "points outside"),
    "zip drive": (lambda: zip_member("C:\\evil.png"), "points outside"),
    "zip share": (lambda: zip_member("\\\\host\\evil.png"), "points outside"),
    "zip NUL": (lambda: patched(zip_member("evil.png!.sh"), b"evil.png!.sh", b"evil.png\0.sh"), "no file name"),
    "zip escape": (lambda: zip_member("\x1b[2J.png"), "no file name"),
    "zip folder ..": (lambda: zip_member("../evil/", stat.S_IFDIR | 0o755), "points outside"),
    "zip link": (lambda: zip_member("evil.png", stat.S_IFLNK | 0o777), "is a link or a device"),
    "zip pipe": (lambda: zip_member("evil.png", stat.S_IFIFO | 0o777), "is a link or a device"),
    "zip case": (lambda: zip_member("A.png"), "occurs twice"),
    "zip twice": (lambda: patched(zip_member("b.png"), b"b.png", b"a.png"), "occurs twice"),
    "zip accents": (lambda: zip_bytes([("\u00e9.png", b"1"), ("e\u0301.png", b"2")]), "occurs twice"),
    "zip deep": (lambda: zip_member("a/" * 33 + "evil.png"), "no file name"),
    "zip long": (lambda: zip_member("a" * 300 + ".png"), "File name too long"),
    "zip file as folder": (lambda: zip_member("a.png/evil.png"), "cannot be unpacked"),
    "zip encrypted": (encrypted_zip, "is encrypted"),
    "zip bomb": (lambda: zip_bytes({"a.png": bytes(2**27)}), "would grow more than 100 times"),
    "zip overlap": (overlapping_zip, "would grow more than 100 times"),
    "zip CRC": (lambda: patched(zip_bytes(TREE, 0), b"one", b"0ne"), "damaged"),
    "zip lies low": (
        lambda: patched(zip_bytes({"a.png": b"1" * 99}, 0), struct.pack("<I", 99), struct.pack("<I", 9)),
        "damaged",
    ),
    "zip lies high": (
        lambda: patched(zip_bytes({"a.png": b"1" * 99}), struct.pack("<I", 99), struct.pack("<I", 999)),
        "holds less",
    ),
    "zip method": (unknown_method, "by hand"),
    "tar ..": (lambda: tar_member("../evil.png", tarfile.REGTYPE), "points outside"),
    "tar folder ..": (lambda: tar_member("..", tarfile.DIRTYPE), "points outside"),
    "tar no name": (lambda: tar_member("./.", tarfile.REGTYPE), "no file name"),
    "tar absolute": (lambda: tar_member("/evil.png", tarfile.REGTYPE), "points outside"),
    "tar link": (lambda: tar_member("evil.png", tarfile.SYMTYPE), "is a link"),
    "tar hard link": (lambda: tar_member("evil.png", tarfile.LNKTYPE, "a.png"), "is a link"),
    "tar device": (lambda: tar_member("evil.png", tarfile.CHRTYPE), "a device"),
    "tar pipe": (lambda: tar_member("evil.png", tarfile.FIFOTYPE), "a device"),
    "tar case": (lambda: tar_member("A.PNG", tarfile.REGTYPE), "occurs twice"),
    "tar sparse": (sparse_member, "holes"),
    "tar header bomb": (oversized_header, "damaged"),
    "tar negative size": (negative_size, "link, a device"),
    "tar bomb": (lambda: gzip.compress(tar_bytes([("a.png", bytes(2**27))])), "would grow more than 100 times"),
    "tar bomb of no picture": (lambda: lzma.compress(tar_bytes([("a", bytes(2**27))])), "would grow more"),
    "nothing": (lambda: b"", "not a zip or tar archive"),
    "web page": (lambda: b"<!DOCTYPE html><html>quota exceeded</html>" * 30, "not a zip or tar archive"),
    "compressed text": (lambda: gzip.compress(b"no tar" * 300), "not a zip or tar archive"),
    "rar": (lambda: b"Rar!\x1a\x07\x01\x00" + bytes(99), r"\.rar archive: unpack it by hand and name `folder:`"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(99), r"\.7z archive: unpack it by hand and name `folder:`"),
    "no pictures": (lambda: zip_bytes({"readme.txt": b"1"}), "holds no pictures"),
    "empty zip": (lambda: zip_bytes({}), "holds no pictures"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_leave_nothing(tmp_path: Path, name: str) -> None:
    build, message = HOSTILE[name]
    archive = tmp_path / "hostile"
    archive.write_bytes(build())
    with pytest.raises(DataError, match=message) as caught:
        unpack(archive, tmp_path / "sets" / "out")
    assert str(archive) in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(tmp_path)) * 3
    assert str(caught.value).isprintable()
    assert tree(tmp_path).keys() == {"hostile"}
    assert not (tmp_path / "sets" / "out").exists()


def test_declared_limits(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_bytes(TREE))
    size = sum(map(len, TREE.values()))
    with pytest.raises(DataError, match="more than"):
        unpack(archive, tmp_path / "out", limit_bytes=size - 1)
    with pytest.raises(DataError, match="more than 3 members"):
        unpack(archive, tmp_path / "out", limit_members=3)
    unpack(archive, tmp_path / "out", limit_bytes=size, limit_members=4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_is_noticed(tmp_path: Path, kind: str) -> None:
    content = KINDS[kind]()
    # Python pads a tar archive to 10,240 bytes; the last zeros are no loss.
    whole = len(content.rstrip(b"\0")) + 512 if "tar" in kind and "." not in kind else len(content)
    archive = tmp_path / "cut"
    for end in sorted({*range(0, whole, max(1, whole // 60)), *range(512, whole, 512), whole - 1}):
        archive.write_bytes(content[:end])
        with pytest.raises(DataError):
            unpack(archive, tmp_path / "out")
        assert tree(tmp_path).keys() == {"cut"}


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bits_give_the_truth_or_a_message(tmp_path: Path, kind: str) -> None:
    """Zip and the compressions have checksums; in a plain tar archive a flipped bit of a picture cannot be noticed."""
    content = KINDS[kind]()
    archive = tmp_path / "flipped"
    rng = np.random.default_rng(0)
    wrong = 0
    for number, bit in enumerate(rng.integers(0, 8 * len(content.rstrip(b"\0")), 150)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << (bit % 8)
        archive.write_bytes(damaged)
        out = tmp_path / f"out{number}"
        try:
            unpack(archive, out)
        except DataError:
            assert not out.exists()
        else:
            wrong += tree(out).values() != TREE.values() and sorted(tree(out).values()) != sorted(TREE.values())
    if "tar" not in kind or "." in kind:
        assert wrong == 0


def test_a_killed_run_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_bytes(TREE))
    (tmp_path / ".out.unpacking").mkdir()
    (tmp_path / ".out.unpacking" / "old.png").write_bytes(b"half")
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == TREE
    assert not (tmp_path / ".out.unpacking").exists()


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_bytes(zip_bytes(TREE))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives._Guard, "write", full)
    with pytest.raises(DataError, match="No space left on device"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_pictures_stay_what_they_were(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "1.png")
    (tmp_path / "a.zip").write_bytes(zip_bytes({"a/1.png": (tmp_path / "1.png").read_bytes()}))
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert np.array_equal(np.array(Image.open(tmp_path / "out/a/1.png")), picture)
